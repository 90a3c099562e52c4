//! WebSockets over HTTP/2 (RFC 8441): an extended CONNECT becomes the request for an upgrade that it stands for.
//!
//! No later step has to know: what is checked, counted and forwarded is what a WebSocket over HTTP/1.1 asks for. Only where both sides
//! switch it matters again (`forward::upgrade`).
//!
//! Not here: any other CONNECT, which is refused (`gateway::http`).

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, Method, header, request::Parts};
use hyper::ext::Protocol;

use crate::gateway::rejection::Rejection;

/// Makes an upgrade to a WebSocket of a request for one, or refuses what is asked for instead. Where it was not offered h2 has
/// refused it.
pub(crate) fn read(request: &mut Parts) -> Result<(), Rejection> {
    let Some(protocol) = request.extensions.get::<Protocol>() else {
        return Ok(());
    };
    if protocol.as_str() != "websocket" {
        return Err(Rejection::NotImplemented);
    }
    request.method = Method::GET;
    let headers = &mut request.headers;
    // h2 lets neither of the first two pass, and the third means nothing over HTTP/2 (RFC 8441 §5).
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_KEY, key());
    Ok(())
}

/// 16 random bytes (RFC 6455 §4.1).
fn key() -> HeaderValue {
    let mut random = [0; 16];
    // It keeps no secret: it shows that the answer is one to this request.
    let _ = getrandom::fill(&mut random);
    let text = STANDARD.encode(random);
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA=="))
}
