//! From a rejection to an answer that fits the request: a page, `application/problem+json`, or a bare status before an upgrade.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::{Fault, Rejection, policy};
use crate::{
    api::problem::{MEDIA_TYPE, Problem},
    gateway::{
        forward::Body,
        page::{Icon, Page},
    },
};

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

/// The answer to a rejected request.
pub(crate) fn answer(rejection: &Rejection, form: Form, request_id: &str) -> Response<Body> {
    let mut response = match form {
        Form::Page => page(rejection, request_id),
        Form::Problem => problem(rejection, request_id),
        Form::Grpc => grpc(rejection),
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

fn problem(rejection: &Rejection, request_id: &str) -> Response<Body> {
    let problem = Problem {
        status: rejection.status().as_u16(),
        title: rejection.to_string(),
        reason: rejection.reason().to_owned(),
        detail: Some(advice(rejection).to_owned()),
        request_id: Some(request_id.to_owned()),
    };
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    with(rejection.status(), MEDIA_TYPE, body)
}

/// The nearest gRPC status (the gRPC mapping of HTTP statuses).
fn grpc(rejection: &Rejection) -> Response<Body> {
    let status = match rejection.status() {
        StatusCode::UNAUTHORIZED => "16",
        StatusCode::FORBIDDEN => "7",
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => "12",
        StatusCode::TOO_MANY_REQUESTS => "8",
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => "14",
        StatusCode::GATEWAY_TIMEOUT => "4",
        _ => "13",
    };
    let mut response = with(StatusCode::OK, "application/grpc", Vec::new());
    response
        .headers_mut()
        .insert("grpc-status", HeaderValue::from_static(status));
    response
        .headers_mut()
        .insert("grpc-message", HeaderValue::from_static(rejection.reason()));
    response
}

/// A page without script and without anything that came from the request.
fn page(rejection: &Rejection, request_id: &str) -> Response<Body> {
    let status = rejection.status();
    let reason = rejection.reason();
    let (icon, whose) = match rejection.fault() {
        Fault::Client => (Icon::Person, "you"),
        Fault::Gitspace => (Icon::Gitspace, "the gitspace"),
        Fault::Gateway => (Icon::Gateway, "the gateway"),
    };
    let page = Page::new(&sentence(&rejection.to_string()))
        .marked(icon, "Ended by", whose)
        .text(advice(rejection))
        .links(&[("", "Try again")])
        .footnote(&format!("{} · {reason} · {request_id}", status.as_u16()));
    // A page of a gitspace on its way up asks again by itself.
    let page = match rejection {
        Rejection::Starting => page.refresh(2),
        _ => page,
    };
    page.answer(status)
}

fn with(status: StatusCode, media_type: &'static str, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        format!("{}{}", first.to_uppercase(), chars.as_str())
    })
}

/// What the client can do now.
fn advice(rejection: &Rejection) -> &'static str {
    match rejection {
        Rejection::NoToken => "Open the gitspace from the control plane, or send a token.",
        Rejection::ExpiredToken | Rejection::RevokedToken | Rejection::TicketUsed => {
            "Open the gitspace again from the control plane; that makes a new ticket."
        }
        Rejection::InvalidToken(_) => {
            "Check issuer, audience, algorithm and gitspace of the token; `cde-gateway token inspect` tells."
        }
        Rejection::NoSuchGitspace => "Check the host name, and that you may use this gitspace.",
        Rejection::PortClosed => "Add the port to the gitspace's forwarded ports.",
        Rejection::NotAllowed => "Ask the gitspace's owner to share this port.",
        Rejection::OriginRefused => "Open the page under its own address.",
        Rejection::Tls { .. } => {
            "The gateway's operator finds in the access log what was shown and what was expected."
        }
        Rejection::RateLimited { .. } | Rejection::TooManyStreams { .. } | Rejection::Crowded => {
            "Wait a moment and try again."
        }
        Rejection::Stopped => "Start the gitspace and reload.",
        Rejection::Starting => "Wait; this page reloads by itself.",
        Rejection::TargetChanged => "Try again: the next request goes to its new place.",
        Rejection::Unreachable(_) | Rejection::Broke(..) | Rejection::Timeout(_) => {
            "Check that the program on this port is running in the gitspace, then reload."
        }
        _ => match rejection.fault() {
            Fault::Client => "Check the request.",
            Fault::Gitspace => "Try again.",
            Fault::Gateway => "Try again in a moment.",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_fits_the_request() {
        let mut headers = HeaderMap::new();
        assert_eq!(Form::of(&headers, true), Form::Page);
        assert_eq!(Form::of(&headers, false), Form::Problem);
        headers.insert("content-type", "application/grpc+proto".parse().unwrap());
        assert_eq!(Form::of(&headers, false), Form::Grpc);
    }

    #[test]
    fn every_answer_names_its_reason_and_is_not_cached() {
        for form in [Form::Page, Form::Problem] {
            let response = answer(&Rejection::NoToken, form, "id1");
            assert_eq!(response.status(), 401);
            assert_eq!(response.headers()["cache-control"], "no-store");
            assert_eq!(
                response.headers()["proxy-status"],
                "cde-gateway; error=http_request_denied; details=\"no-token\""
            );
        }
    }

    #[test]
    fn token_details_stay_out_of_the_answer() {
        let rejection = Rejection::InvalidToken("kid 7 is unknown".into());
        assert!(!rejection.to_string().contains("kid"));
    }
}
