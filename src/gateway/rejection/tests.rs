//! Every rejection in every form.

use std::{collections::HashMap, io, iter::successors, path::Path};

use http::Response;
use http_body_util::BodyExt;
use serde_json::Value;

use super::*;
use crate::{api::access::Port, config::Scope, gateway::forward::Body};

const LOGIN: &str = "https://app-a1b2c3.gitspaces.localhost:8443/_gitspace/login";
const FORMS: [Form; 3] = [Form::Page, Form::Problem, Form::Grpc];

/// The error types of RFC 9209 §2.3.
const REGISTERED: &[&str] = &[
    "dns_timeout",
    "dns_error",
    "destination_not_found",
    "destination_unavailable",
    "destination_ip_prohibited",
    "destination_ip_unroutable",
    "connection_refused",
    "connection_terminated",
    "connection_timeout",
    "connection_read_timeout",
    "connection_write_timeout",
    "connection_limit_reached",
    "tls_protocol_error",
    "tls_certificate_error",
    "tls_alert_received",
    "http_request_error",
    "http_request_denied",
    "http_response_incomplete",
    "http_response_header_section_size",
    "http_response_header_size",
    "http_response_body_size",
    "http_response_trailer_section_size",
    "http_response_trailer_size",
    "http_response_transfer_coding",
    "http_response_content_coding",
    "http_response_timeout",
    "http_upgrade_failed",
    "http_protocol_error",
    "proxy_internal_response",
    "proxy_internal_error",
    "proxy_configuration_error",
    "proxy_loop_detected",
];

/// The variant after this one: the compiler asks for the place of a new one in the chain.
fn after(rejection: &Rejection) -> Option<Rejection> {
    use Rejection as R;
    let io = || io::Error::other("of-the-log");
    let tls = |fault| R::Tls {
        fault,
        source: io(),
    };
    Some(match rejection {
        R::BadRequest(_) => R::Misdirected,
        R::Misdirected => R::Loop,
        R::Loop => R::NoToken,
        R::NoToken => R::InvalidToken("of-the-log".into()),
        R::InvalidToken(_) => R::ExpiredToken,
        R::ExpiredToken => R::RevokedToken,
        R::RevokedToken => R::TicketUsed,
        R::TicketUsed => R::NotAllowed,
        R::NotAllowed => R::OriginRefused,
        R::OriginRefused => R::AccessEnded("of-the-log".into()),
        R::AccessEnded(_) => R::NoSuchGitspace,
        R::NoSuchGitspace => R::PortClosed,
        R::PortClosed => R::NoSuchPage,
        R::NoSuchPage => R::MethodNotAllowed,
        R::MethodNotAllowed => R::ExpectationFailed,
        R::ExpectationFailed => R::RateLimited {
            policy: Policy::Requests(Scope::Principal),
            limit: 5,
            window: Duration::from_secs(1),
            retry_after: Duration::from_millis(200),
        },
        R::RateLimited { .. } => R::TooManyStreams {
            policy: Policy::Streams(Scope::Principal),
            limit: 5,
        },
        R::TooManyStreams { .. } => R::BodyTooLarge,
        R::BodyTooLarge => R::HeadTooLarge,
        R::HeadTooLarge => R::HeadTimeout,
        R::HeadTimeout => R::NotImplemented,
        R::NotImplemented => R::VersionNotSupported,
        R::VersionNotSupported => R::Unreachable(io()),
        R::Unreachable(_) => R::NothingListens(Port::App(3000), io()),
        R::NothingListens(Port::App(_), _) => R::NothingListens(Port::Ide, io()),
        R::NothingListens(..) => tls(TlsFault::Certificate),
        R::Tls { fault, .. } => match fault {
            TlsFault::Certificate => tls(TlsFault::NotSpoken),
            TlsFault::NotSpoken => tls(TlsFault::Unexpected),
            TlsFault::Unexpected => tls(TlsFault::Handshake),
            TlsFault::Handshake => R::Crowded,
        },
        R::Crowded => R::Broke(Break::Terminated, io().into()),
        R::Broke(how, _) => {
            let next = match how {
                Break::Terminated => Break::Incomplete,
                Break::Incomplete => Break::Protocol,
                Break::Protocol => Break::HeadTooLarge,
                Break::HeadTooLarge => Break::TransferCoding,
                Break::TransferCoding => Break::Upgrade,
                Break::Upgrade => return Some(R::Timeout(Late::Connect)),
            };
            R::Broke(next, io().into())
        }
        R::Timeout(Late::Connect) => R::Timeout(Late::Request),
        R::Timeout(Late::Request) => R::Timeout(Late::Answer),
        R::Timeout(Late::Answer) => R::TargetChanged,
        R::TargetChanged => R::Stopped,
        R::Stopped => R::Starting,
        R::Starting => R::ShuttingDown,
        R::ShuttingDown => R::Overloaded,
        R::Overloaded => R::ControlPlaneStale,
        R::ControlPlaneStale => R::BodyTimeout,
        R::BodyTimeout => R::ClientGone,
        R::ClientGone => return None,
    })
}

fn every() -> impl Iterator<Item = Rejection> {
    successors(Some(Rejection::BadRequest("no Host")), after)
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    let value = response.headers().get(name)?;
    Some(value.to_str().unwrap())
}

async fn text(response: Response<Body>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[test]
fn every_answer_names_its_reason_and_says_when_to_come_again() {
    for (rejection, form) in every().flat_map(|one| FORMS.map(|form| (after_same(&one), form))) {
        let response = answer(&rejection, form, "id1", None);
        let (status, reason) = (rejection.status(), rejection.reason());
        let error = rejection.proxy_error();
        assert!(REGISTERED.contains(&error), "{error}");
        assert_eq!(
            header(&response, "proxy-status"),
            Some(&*format!(
                "cde-gateway; error={error}; details=\"{reason}\""
            ))
        );
        assert_eq!(header(&response, "cache-control"), Some("no-store"));
        let expected = if form == Form::Grpc {
            200
        } else {
            status.as_u16()
        };
        assert_eq!(response.status(), expected, "{reason}");
        let waits = match status.as_u16() {
            503 => Some("2"),
            429 if reason == "rate-limited" => Some("1"),
            _ => None,
        };
        if reason != "too-many-streams" {
            assert_eq!(header(&response, "retry-after"), waits, "{reason}");
        }
        let challenge = (status == 401).then_some("Bearer realm=\"gitspaces\"");
        assert_eq!(header(&response, "www-authenticate"), challenge, "{reason}");
    }
}

/// The same rejection once more: rejections are not cloned.
fn after_same(rejection: &Rejection) -> Rejection {
    let place = |one: &Rejection| format!("{one:?}");
    every().find(|one| place(one) == place(rejection)).unwrap()
}

#[tokio::test]
async fn every_page_says_whose_fault_it_is_and_what_to_do_next() {
    for rejection in every() {
        let reason = rejection.reason();
        let texts = catalogue::of(&rejection);
        let response = answer(&rejection, Form::Page, "id1", Some(LOGIN));
        assert_eq!(
            header(&response, "content-type"),
            Some("text/html; charset=utf-8")
        );
        let policy = header(&response, "content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"));
        assert_eq!(policy.contains("script-src"), texts.waits, "{reason}");
        assert!(!policy.contains("unsafe"));
        assert_eq!(header(&response, "x-content-type-options"), Some("nosniff"));
        assert_eq!(header(&response, "referrer-policy"), Some("no-referrer"));
        let html = text(response).await.replace("&#39;", "'");
        assert!(html.len() < 20_000, "{reason}: {} bytes", html.len());
        let (whose, _) = catalogue::fault(rejection.fault());
        for part in [whose, texts.meaning, texts.next, reason, "id1"] {
            assert!(html.contains(part), "{reason} without {part:?}: {html}");
        }
        assert!(!html.contains("of-the-log"), "{reason}: {html}");
        let again = html.contains("<a href=\"\">Try again</a>");
        assert_eq!(again, texts.again, "{reason}");
        // Without script; with it the page looks whether its reason still holds.
        let refreshes = html.contains("<noscript><meta http-equiv=\"refresh\" content=\"5\">");
        let asks = html.contains(&format!("<script data-reason=\"{reason}\">"));
        assert_eq!((refreshes, asks), (texts.waits, texts.waits), "{reason}");
        assert!(html.contains(&format!("<a href=\"{LOGIN}\">Sign in</a>")));
        let html = text(answer(&rejection, Form::Page, "id1", None)).await;
        assert!(!html.contains("Sign in</a>"), "{reason}");
    }
}

#[tokio::test]
async fn every_problem_has_the_same_texts_and_where_to_log_in() {
    for rejection in every() {
        let texts = catalogue::of(&rejection);
        let response = answer(&rejection, Form::Problem, "id1", Some(LOGIN));
        assert_eq!(
            header(&response, "content-type"),
            Some("application/problem+json")
        );
        let problem: Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(
            problem,
            serde_json::json!({
                "status": rejection.status().as_u16(),
                "title": rejection.to_string(),
                "reason": rejection.reason(),
                "detail": format!("{} {}", texts.meaning, texts.next),
                "request_id": "id1",
                "login": LOGIN,
            })
        );
        let problem = text(answer(&rejection, Form::Problem, "id1", None)).await;
        assert!(!problem.contains("login\""), "{problem}");
        assert!(!problem.contains("of-the-log"), "{problem}");
    }
}

#[tokio::test]
async fn every_grpc_status_is_one_that_is_not_the_apps() {
    let codes = HashMap::from([
        (400, "13"),
        (401, "16"),
        (403, "7"),
        (404, "12"),
        (405, "12"),
        (408, "4"),
        (413, "8"),
        (417, "13"),
        (421, "14"),
        (429, "8"),
        (431, "8"),
        (501, "12"),
        (502, "14"),
        (503, "14"),
        (504, "4"),
        (505, "12"),
        (508, "13"),
    ]);
    for rejection in every() {
        let response = answer(&rejection, Form::Grpc, "id1", Some(LOGIN));
        assert_eq!(header(&response, "content-type"), Some("application/grpc"));
        let code = codes[&rejection.status().as_u16()];
        assert_eq!(header(&response, "grpc-status"), Some(code), "{rejection}");
        let title = catalogue::of(&rejection).title;
        assert_eq!(header(&response, "grpc-message"), Some(title));
        assert_eq!(text(response).await, "");
    }
}

#[test]
fn texts_are_sentences_and_no_two_titles_are_alike() {
    let mut titles = HashMap::new();
    for rejection in every() {
        let texts = catalogue::of(&rejection);
        assert!(rejection.to_string().starts_with(texts.title));
        assert!(!texts.title.ends_with('.') && texts.title.starts_with(char::is_lowercase));
        for text in [texts.meaning, texts.next] {
            assert!(text.ends_with('.') && text.starts_with(char::is_uppercase));
        }
        let kind = std::mem::discriminant(&rejection);
        let before = titles.insert(texts.title, kind);
        assert!(
            before.is_none_or(|before| before == kind),
            "{}",
            texts.title
        );
    }
    assert_eq!(titles.len(), 40, "a variant that is not in the chain");
}

#[test]
fn the_form_fits_the_request() {
    let mut headers = http::HeaderMap::new();
    assert_eq!(Form::of(&headers, true), Form::Page);
    assert_eq!(Form::of(&headers, false), Form::Problem);
    headers.insert("content-type", "application/grpc+proto".parse().unwrap());
    assert_eq!(Form::of(&headers, false), Form::Grpc);
}

/// `tests/pages` looks at them in a browser: a file of JSON for each, with all that the gateway sends.
#[tokio::test]
#[ignore = "writes the pages for tests/pages, which names a folder"]
async fn pages_for_the_browser() {
    let folder = std::env::var("CDE_PAGES").expect("CDE_PAGES names a folder");
    let folder = Path::new(&folder);
    for (name, rejection, page) in crate::gateway::wake::pages() {
        keep(
            folder,
            &name,
            answer_with(page, &rejection, rejection.status(), "0123456789abcdef-1"),
        )
        .await;
    }
    for login in [None, Some("/_gitspace/login")] {
        for rejection in every().filter(|one| login.is_none() || one.status() == 401) {
            let response = answer(&rejection, Form::Page, "0123456789abcdef-1", login);
            let title = rejection.to_string();
            let words: Vec<&str> = title.split(|c: char| !c.is_alphanumeric()).collect();
            let kind = if login.is_some() { "-login" } else { "" };
            let name = format!("{}-{}{kind}", rejection.status().as_u16(), words.join("-"));
            keep(folder, &name, response).await;
        }
    }
}

async fn keep(folder: &Path, name: &str, response: Response<Body>) {
    let headers: HashMap<String, String> = response
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    let page = serde_json::json!({ "status": response.status().as_u16(), "headers": headers, "body": text(response).await });
    std::fs::write(folder.join(name).with_extension("json"), page.to_string()).unwrap();
}
