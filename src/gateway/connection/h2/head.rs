//! What h2 lets pass of a request's head though RFC 9113 §8 calls it malformed, and how many fields a head may have.
//!
//! Not here: what both versions of HTTP have in common (`gateway::http`), what h2 drops before we see it (`frames`).

use http::{HeaderMap, HeaderValue, Method, Uri, header, request::Parts, uri::PathAndQuery};

use crate::gateway::rejection::Rejection;

/// Refuses what h2 let pass. Nothing has been copied yet.
pub(crate) fn check(request: &Parts, fields_max: usize) -> Result<(), Rejection> {
    if request.headers.len() > fields_max {
        return Err(Rejection::HeadTooLarge);
    }
    target(&request.method, &request.uri)?;
    length(&request.headers)?;
    match request.headers.values().all(is_trimmed) {
        true => Ok(()),
        false => Err(Rejection::BadRequest(
            "a field value begins or ends with a space",
        )),
    }
}

/// `:path` begins with a slash, and `*` is for OPTIONS (RFC 9113 §8.3.1). A scheme that is not HTTP is no request for us.
fn target(method: &Method, uri: &Uri) -> Result<(), Rejection> {
    if uri
        .scheme_str()
        .is_some_and(|scheme| !matches!(scheme, "https" | "http"))
    {
        return Err(Rejection::BadRequest("the scheme is not https"));
    }
    let path = uri.path_and_query().map_or("", PathAndQuery::as_str);
    match path.starts_with('/')
        || path == "*" && method == Method::OPTIONS
        || method == Method::CONNECT
    {
        true => Ok(()),
        false => Err(Rejection::BadRequest(
            "the path does not begin with a slash",
        )),
    }
}

/// One number, or none: two that are equal are still two for the next hop.
fn length(headers: &HeaderMap) -> Result<(), Rejection> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(()),
        (Some(length), None)
            if !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit) =>
        {
            Ok(())
        }
        _ => Err(Rejection::BadRequest("Content-Length is not one number")),
    }
}

/// RFC 9113 §8.2.1: HTTP/1.1 would cut the space off, so two readers would read two values.
fn is_trimmed(value: &HeaderValue) -> bool {
    let space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let bytes = value.as_bytes();
    !space(bytes.first()) && !space(bytes.last())
}
