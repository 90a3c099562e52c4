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

/// A page whose cause may go by itself is loaded again after so many seconds, where it has no script.
const ASK_AGAIN: u8 = 5;

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
    answer_as(rejection, rejection.status(), form, request_id, login)
}

/// The same with another status, for clients that know no other.
pub(crate) fn answer_as(
    rejection: &Rejection,
    status: StatusCode,
    form: Form,
    request_id: &str,
    login: Option<&str>,
) -> Response<Body> {
    let mut response = match form {
        Form::Page => return answer_with(page(rejection, login), rejection, status, request_id),
        Form::Problem => problem(rejection, status, request_id, login),
        Form::Grpc => grpc::trailers(rejection),
    };
    tell(rejection, status, response.headers_mut());
    response
}

/// The answer to a rejected navigation, by a page that says more than the rejection's own.
pub(crate) fn answer_with(
    page: Page,
    rejection: &Rejection,
    status: StatusCode,
    request_id: &str,
) -> Response<Body> {
    let reason = rejection.reason();
    let page = page.identified(status, reason, request_id);
    let mut response = page.answer(status);
    tell(rejection, status, response.headers_mut());
    response
}

/// What is told of a rejection in fields, whatever the body.
pub(crate) fn tell(rejection: &Rejection, status: StatusCode, headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let told = format!(
        "cde-gateway; error={}; details=\"{}\"",
        rejection.proxy_error(),
        rejection.reason()
    );
    if let Ok(value) = HeaderValue::from_str(&told) {
        headers.insert("proxy-status", value);
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"gitspaces\""),
        );
    }
    policy::tell(rejection, headers);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    }
}

/// A problem, and beside its members where to log in: a page that made the request can offer it.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    problem: Problem,
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<&'a str>,
}

fn problem(
    rejection: &Rejection,
    status: StatusCode,
    request_id: &str,
    login: Option<&str>,
) -> Response<Body> {
    let texts = catalogue::of(rejection);
    let problem = Problem {
        status: status.as_u16(),
        title: rejection.to_string(),
        reason: rejection.reason().to_owned(),
        detail: Some(format!("{} {}", texts.meaning, texts.next)),
        request_id: Some(request_id.to_owned()),
    };
    let body = serde_json::to_vec(&Told { problem, login }).unwrap_or_default();
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    let media_type = HeaderValue::from_static(MEDIA_TYPE);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, media_type);
    response
}

/// A page without anything that came from the request: whose fault it was, what it means, and what to do next.
fn page(rejection: &Rejection, login: Option<&str>) -> Page {
    let texts = catalogue::of(rejection);
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
    if texts.waits {
        page = page
            .waits(rejection.reason(), Some(ASK_AGAIN), false)
            .text(catalogue::ASKS_AGAIN);
    }
    let sign_in = login.map(|login| (login, catalogue::SIGN_IN));
    // The page's own address, whatever it is: a retry is of the same request.
    let try_again = texts.again.then_some(("", catalogue::TRY_AGAIN));
    let links: Vec<_> = sign_in.into_iter().chain(try_again).collect();
    page.links(&links)
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        format!("{}{}", first.to_uppercase(), chars.as_str())
    })
}
