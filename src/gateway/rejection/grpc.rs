//! A rejection as gRPC tells it: trailers in the head of an answer that is 200 to HTTP.

use std::fmt::Write;

use http::{HeaderValue, Response, StatusCode, header};

use super::{Rejection, catalogue};
use crate::gateway::forward::Body;

pub(super) fn trailers(rejection: &Rejection) -> Response<Body> {
    let mut response = Response::new(Body::full(Vec::new()));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    let code = HeaderValue::from_static(code(rejection.status()));
    headers.insert("grpc-status", code);
    if let Ok(message) = HeaderValue::from_str(&encoded(catalogue::of(rejection).title)) {
        headers.insert("grpc-message", message);
    }
    response
}

/// The protocol's mapping of HTTP statuses, except where a code says it better. Never a code that only applications give
/// (INVALID_ARGUMENT, NOT_FOUND, …): a client would take ours for the app's word.
fn code(status: StatusCode) -> &'static str {
    match status {
        // DEADLINE_EXCEEDED: unlike UNAVAILABLE it says that the call may have been carried out.
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => "4",
        // PERMISSION_DENIED
        StatusCode::FORBIDDEN => "7",
        // RESOURCE_EXHAUSTED
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "8",
        // UNIMPLEMENTED
        StatusCode::NOT_FOUND
        | StatusCode::METHOD_NOT_ALLOWED
        | StatusCode::NOT_IMPLEMENTED
        | StatusCode::HTTP_VERSION_NOT_SUPPORTED => "12",
        // UNAVAILABLE: another connection, or a little later.
        StatusCode::MISDIRECTED_REQUEST
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE => "14",
        // UNAUTHENTICATED
        StatusCode::UNAUTHORIZED => "16",
        // INTERNAL
        _ => "13",
    }
}

/// Percent-encoding as `grpc-message` has it: of everything that is not printable ASCII, and of `%`.
fn encoded(text: &str) -> String {
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut out, byte| {
            if matches!(byte, b' '..=b'~') && byte != b'%' {
                out.push(char::from(byte));
            } else {
                // Writing to a String cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
            out
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_encoded() {
        assert_eq!(encoded("a %b ä\n~"), "a %25b %C3%A4%0A~");
    }
}
