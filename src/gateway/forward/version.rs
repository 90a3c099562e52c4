//! A request in the form of the connection that it is sent on: HTTP/1.1 or HTTP/2.
//!
//! The header policy leaves a head of HTTP/1.1. For HTTP/2 its Host becomes `:authority` (RFC 9113 §8.3.1), and what belongs to
//! a connection of HTTP/1.1 goes (§8.2.2); `TE: trailers` stays.

use http::{
    HeaderValue, Request, Response, Uri, Version, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use hyper::body::Incoming;

use super::body::RequestBody;
use crate::{
    api::route::Protocol,
    gateway::{
        rejection::{Break, Rejection},
        route::Target,
    },
};

/// Gives a request the form of its connection, whichever it has now.
pub(super) fn fit(
    request: &mut Request<RequestBody>,
    http2: bool,
    target: &Target,
) -> Result<(), Rejection> {
    match (http2, request.version()) {
        (true, Version::HTTP_2) => Ok(()),
        (true, _) => to_http2(request, target),
        (false, Version::HTTP_2) => to_http1(request),
        (false, _) => Ok(()),
    }
}

fn to_http2(request: &mut Request<RequestBody>, target: &Target) -> Result<(), Rejection> {
    let scheme = match target.protocol {
        Protocol::Https => Scheme::HTTPS,
        Protocol::Http | Protocol::H2c => Scheme::HTTP,
    };
    let headers = request.headers_mut();
    let host = headers.remove(header::HOST);
    for name in [
        header::CONNECTION,
        header::UPGRADE,
        header::TRANSFER_ENCODING,
    ] {
        headers.remove(name);
    }
    let authority = host
        .as_ref()
        .and_then(|host| Authority::try_from(host.as_bytes()).ok())
        .ok_or(BAD_TARGET)?;
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(scheme);
    parts.authority = Some(authority);
    parts.path_and_query = path(request.uri());
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| BAD_TARGET)?;
    *request.version_mut() = Version::HTTP_2;
    Ok(())
}

/// Back again, where another connection takes it.
fn to_http1(request: &mut Request<RequestBody>) -> Result<(), Rejection> {
    let host = request.uri().authority().map(Authority::as_str);
    let host = host.and_then(|host| HeaderValue::from_str(host).ok());
    request
        .headers_mut()
        .insert(header::HOST, host.ok_or(BAD_TARGET)?);
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = path(request.uri());
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| BAD_TARGET)?;
    *request.version_mut() = Version::HTTP_11;
    Ok(())
}

/// The most fields of an answer's head, which HTTP/1.1 has by itself.
const FIELDS_MAX: usize = 100;

/// Refuses an answer of HTTP/2 that HTTP/1.1 would not have let through.
pub(super) fn check(response: &Response<Incoming>, http2: bool) -> Result<(), Rejection> {
    let (how, problem) = if response.status().is_informational() {
        (
            Break::Upgrade,
            "a switch of protocols, which HTTP/2 does not have",
        )
    } else if response.headers().len() > FIELDS_MAX {
        (Break::HeadTooLarge, "too many fields")
    } else {
        return Ok(());
    };
    match http2 {
        true => Err(Rejection::Broke(
            how,
            format!("the gitspace answered with {problem}").into(),
        )),
        false => Ok(()),
    }
}

const BAD_TARGET: Rejection = Rejection::BadRequest("host or target cannot be passed on");

fn path(uri: &Uri) -> Option<PathAndQuery> {
    uri.path_and_query()
        .cloned()
        .or(Some(PathAndQuery::from_static("/")))
}
