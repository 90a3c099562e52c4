//! The fuzz target of the header policy: what an upstream gets and what a client gets back, held against lists of its own.

pub use super::upgrade::fuzzing::bridge;

use std::{collections::BTreeSet, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Version, header};

use super::headers::{Forwarding, Names, to_client, to_upstream};
use crate::{
    api::route::{HostHeader, Protocol},
    config,
    gateway::{
        fuzzing::lines,
        http::{Transport, parse},
        route::{Address, Target},
    },
};

const HOST: &str = "api-k3x9q2.gitspaces.localhost";
/// Fields for one hop (RFC 9110 §7.6.1).
const HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "transfer-encoding",
    "upgrade",
];
/// What only we may say, with what we say of the request below; "" where we say nothing.
const OURS: &[(&str, &str)] = &[
    ("x-forwarded-for", "192.0.2.7"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", HOST),
    ("x-forwarded-port", "8443"),
    ("x-request-id", "the-id"),
    ("x-gitspace-id", "api-k3x9q2"),
    ("x-gitspace-user", "alice"),
    ("x-gitspace-assertion", ""),
    ("x-real-ip", ""),
    ("x-client-ip", ""),
    ("x-cluster-client-ip", ""),
    ("true-client-ip", ""),
    ("cf-connecting-ip", ""),
    ("x-original-url", ""),
    ("x-rewrite-url", ""),
];

/// A field a line, `name: value`; a first line `<` makes them an answer's.
pub fn headers(data: &[u8]) {
    let answer = data.first() == Some(&b'<');
    let fields: Vec<(HeaderName, HeaderValue)> = lines(data).take(100).filter_map(field).collect();
    if answer {
        from_upstream(&fields);
    } else {
        from_client(&fields);
    }
}

fn field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
    let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
    (name != header::HOST).then_some((name, value))
}

fn from_client(fields: &[(HeaderName, HeaderValue)]) {
    let mut request = Request::new(());
    request
        .headers_mut()
        .insert(header::HOST, HeaderValue::from_static(HOST));
    request.headers_mut().extend(
        fields
            .iter()
            .cloned()
            .map(|(name, value)| (Some(name), value))
            .fold(HeaderMap::new(), |mut map, (name, value)| {
                if let Some(name) = name {
                    map.append(name, value);
                }
                map
            }),
    );
    let (mut parts, ()) = request.into_parts();
    let (Ok(head), Ok(names), Ok(gitspace)) = (
        parse(&parts, &["gitspaces.localhost".into()], Transport::Tls),
        Names::new(&config::Headers::default()).map(Arc::new),
        "api-k3x9q2".parse(),
    ) else {
        return;
    };
    let target = Target::new(None, Address::Nowhere, Protocol::Http, None);
    let forwarding = Forwarding {
        names: &names,
        client: [192, 0, 2, 7].into(),
        secure: true,
        port: 8443,
        request_id: "the-id",
        traceparent: None,
        gitspace: &gitspace,
        principal: Some("alice"),
        assertion: None,
        prefix: None,
        host_header: HostHeader::Public,
        origin: HostHeader::Public,
        number: 80,
    };
    if to_upstream(&mut parts, &head, &target, &forwarding).is_err() {
        return;
    }
    assert_eq!(parts.headers.get_all(header::HOST).iter().count(), 1);
    nothing_forbidden(&parts.headers);
    the_rest_is_kept(fields, &parts.headers);
}

/// A name as CGI, WSGI and Rack read it.
fn spelled(name: &HeaderName) -> String {
    let sign = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    name.as_str().chars().map(sign).collect()
}

fn nothing_forbidden(headers: &HeaderMap) {
    for (name, value) in headers {
        let spelled = spelled(name);
        let of_te = name == header::CONNECTION && value == "te" && headers.contains_key("te");
        assert!(of_te || !HOP.contains(&spelled.as_str()), "{name} went on");
        assert!(
            spelled != "te" || value == "trailers",
            "TE went on as {value:?}"
        );
        if let Some((_, said)) = OURS.iter().find(|(own, _)| **own == spelled) {
            assert_eq!(
                (name.as_str(), value),
                (&*spelled, &HeaderValue::from_static(said))
            );
        }
        if spelled.starts_with("x-forwarded") || spelled.starts_with("x-gitspace-") {
            assert!(
                OURS.iter().any(|(own, _)| **own == spelled),
                "{name} went on"
            );
        }
    }
    for (own, _) in OURS.iter().filter(|(_, said)| !said.is_empty()) {
        assert_eq!(headers.get_all(*own).iter().count(), 1, "{own}");
    }
    assert_eq!(headers.get_all("forwarded").iter().count(), 1);
}

/// What `Connection` names.
fn nominated(fields: &[(HeaderName, HeaderValue)]) -> BTreeSet<String> {
    fields
        .iter()
        .filter(|(name, _)| name == header::CONNECTION)
        .flat_map(|(_, value)| value.as_bytes().split(|byte| *byte == b','))
        .map(|option| String::from_utf8_lossy(option.trim_ascii()).to_ascii_lowercase())
        .collect()
}

/// What frames, identifies or secures stays though `Connection` names it; what nobody forbids or names stays as it was.
fn the_rest_is_kept(fields: &[(HeaderName, HeaderValue)], headers: &HeaderMap) {
    let nominated = nominated(fields);
    let protected = [
        "cookie",
        "authorization",
        "origin",
        "content-type",
        "content-length",
        "range",
        "referer",
    ];
    let plain = ["accept", "user-agent", "x-app", "x-csrf-token"];
    let named = |name: &str| nominated.contains(name);
    for name in protected
        .into_iter()
        .chain(plain.into_iter().filter(|name| !named(name)))
    {
        let before: Vec<_> = fields.iter().filter(|(own, _)| own == name).collect();
        let before: Vec<_> = before.into_iter().map(|(_, value)| value).collect();
        let after: Vec<_> = headers.get_all(name).iter().collect();
        assert_eq!(before, after, "{name}");
    }
    for name in plain.into_iter().filter(|name| named(name)) {
        assert!(!headers.contains_key(name), "{name} was for one hop");
    }
}

fn from_upstream(fields: &[(HeaderName, HeaderValue)]) {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(name, value.clone());
    }
    to_client(&mut headers, Version::HTTP_11);
    for (name, value) in &headers {
        assert!(!HOP.contains(&name.as_str()), "{name} went back");
        let own = super::super::auth::SESSION_COOKIE.to_ascii_lowercase();
        let pair = value.as_bytes().split(|byte| *byte == b';').next();
        let mut halves = pair.unwrap_or_default().split(|byte| *byte == b'=');
        let first = halves.next().unwrap_or_default().trim_ascii();
        assert!(
            name != header::SET_COOKIE || !first.eq_ignore_ascii_case(own.as_bytes()),
            "an app set our cookie"
        );
    }
    let kept = |name: &str| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
    if !nominated(fields).contains("etag") {
        let sent: Vec<_> = fields
            .iter()
            .filter(|(name, _)| name == header::ETAG)
            .collect();
        let sent: Vec<_> = sent.into_iter().map(|(_, value)| value.clone()).collect();
        assert_eq!(kept("etag"), sent);
    }
}
