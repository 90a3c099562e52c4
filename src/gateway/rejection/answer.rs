//! From a rejection to an answer that fits the request: a page, `application/problem+json`, or gRPC's trailers.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::{Fault, Rejection, catalogue, grpc, policy};
use crate::{
    api::problem::{MEDIA_TYPE, Problem},
    gateway::{
        forward::Body,
        page::{Icon, Page},
    },
};

/// A page of a gitspace on its way up asks again by itself, after so many seconds.
const ASK_AGAIN: u8 = 2;

/// In which form an answer of our own is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A page for people.
    Page,
    /// `application/problem+json` (RFC 9457).
    Problem,
    /// gRPC: trailers in the head (the protocol's "Trailers-Only").
    Grpc,
}

impl Form {
    /// The form that fits a request.
    pub(crate) fn of(headers: &HeaderMap, navigation: bool) -> Self {
        let grpc = headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        match (grpc, navigation) {
            (true, _) => Self::Grpc,
            (false, true) => Self::Page,
            (false, false) => Self::Problem,
        }
    }
}

/// The answer to a rejected request. `login`: where the person behind it can log in, if that may help.
pub(crate) fn answer(
    rejection: &Rejection,
    form: Form,
    request_id: &str,
    login: Option<&str>,
) -> Response<Body> {
    let mut response = match form {
        Form::Page => page(rejection, request_id, login),
        Form::Problem => problem(rejection, request_id, login),
        Form::Grpc => grpc::trailers(rejection),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let status = format!(
        "cde-gateway; error={}; details=\"{}\"",
        rejection.proxy_error(),
        rejection.reason()
    );
    if let Ok(value) = HeaderValue::from_str(&status) {
        headers.insert("proxy-status", value);
    }
    if rejection.status() == StatusCode::UNAUTHORIZED {
        headers.insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"gitspaces\""),
        );
    }
    policy::tell(rejection, headers);
    if rejection.status() == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    }
    response
}

/// A problem, and beside its members where to log in: a page that made the request can offer it.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    problem: Problem,
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<&'a str>,
}

fn problem(rejection: &Rejection, request_id: &str, login: Option<&str>) -> Response<Body> {
    let texts = catalogue::of(rejection);
    let problem = Problem {
        status: rejection.status().as_u16(),
        title: rejection.to_string(),
        reason: rejection.reason().to_owned(),
        detail: Some(format!("{} {}", texts.meaning, texts.next)),
        request_id: Some(request_id.to_owned()),
    };
    let body = serde_json::to_vec(&Told { problem, login }).unwrap_or_default();
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = rejection.status();
    let media_type = HeaderValue::from_static(MEDIA_TYPE);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, media_type);
    response
}

/// A page without anything that came from the request: whose fault it was, what it means, and what to do next.
fn page(rejection: &Rejection, request_id: &str, login: Option<&str>) -> Response<Body> {
    let texts = catalogue::of(rejection);
    let status = rejection.status();
    let icon = match rejection.fault() {
        Fault::Client => Icon::Person,
        Fault::Gitspace => Icon::Gitspace,
        Fault::Gateway => Icon::Gateway,
    };
    let (whose, others) = catalogue::fault(rejection.fault());
    let mut page = Page::new(&sentence(&rejection.to_string()))
        .marked(icon, whose, others)
        .text(texts.meaning)
        .text(texts.next);
    if let Rejection::Starting = rejection {
        page = page.refresh(ASK_AGAIN).text(catalogue::ASKS_AGAIN);
    }
    let sign_in = login.map(|login| (login, catalogue::SIGN_IN));
    // The page's own address, whatever it is: a retry is of the same request.
    let try_again = texts.again.then_some(("", catalogue::TRY_AGAIN));
    let links: Vec<_> = sign_in.into_iter().chain(try_again).collect();
    let reason = rejection.reason();
    page.links(&links)
        .footnote(&format!("{} · {reason} · {request_id}", status.as_u16()))
        .answer(status)
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        format!("{}{}", first.to_uppercase(), chars.as_str())
    })
}
