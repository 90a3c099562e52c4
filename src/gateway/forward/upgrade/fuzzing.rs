//! The fuzz target of WebSockets over HTTP/2: what a gitspace is asked for, and which of its answers opens one.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::ext::Protocol;

use super::{Asked, answered};
use crate::gateway::{
    connection::{InFlight, h2::websocket},
    fuzzing::lines,
    http::{Transport, parse},
    route::Names,
};

/// The protocol that is asked for; fields of the request, `name: value` a line; then a line `< STATUS` and fields of the answer, in which
/// `{accept}` is what belongs to the key.
pub fn bridge(data: &[u8]) {
    let mut lines = lines(data).take(100);
    let protocol = lines.next().unwrap_or_default();
    let Ok(protocol) = std::str::from_utf8(protocol) else {
        return;
    };
    let mut fields = HeaderMap::new();
    let mut status = None;
    let mut answer = Vec::new();
    for line in lines {
        match (status, line.strip_prefix(b"< ")) {
            (None, Some(code)) => status = StatusCode::from_bytes(code).ok(),
            (None, None) => fields.extend(field(line)),
            (Some(_), _) => answer.push(line),
        }
    }
    let (Some((asked, key)), Some(status)) = (asked_for(protocol, fields), status) else {
        return;
    };
    let accept = accept(&key);
    let mut response = Response::new(());
    *response.status_mut() = status;
    let said = |line: &&[u8]| {
        let text = String::from_utf8_lossy(line).replace("{accept}", &accept);
        field(text.as_bytes())
    };
    let said: Vec<_> = answer.iter().filter_map(said).collect();
    for (name, value) in &said {
        response.headers_mut().append(name, value.clone());
    }
    judged(asked, response, &said, &accept);
}

fn field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
    let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
    Some((name, value))
}

/// What passes of a request is one for a WebSocket, with a key of ours.
fn asked_for(protocol: &str, fields: HeaderMap) -> Option<(Asked, String)> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = http::Uri::from_static("https://api-k3x9q2.gitspaces.localhost/socket");
    *request.headers_mut() = fields;
    // h2 lets none of these pass.
    for name in ["connection", "upgrade", "host", "transfer-encoding"] {
        request.headers_mut().remove(name);
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let (mut parts, ()) = request.into_parts();
    parts.extensions.insert(Protocol::from(protocol));
    parts.extensions.insert(upgrade);
    parts.extensions.insert(InFlight::nowhere());
    let theirs = parts.headers.clone();
    let read = websocket::read(&mut parts);
    assert_eq!(read.is_ok(), protocol == "websocket", "{protocol:?}");
    read.ok()?;
    let head = parse(&parts, &["gitspaces.localhost".into()], Transport::Tls).ok()?;
    assert!(head.upgrade && !head.navigation);
    assert_eq!(parts.method, Method::GET);
    let keys: Vec<_> = parts.headers.get_all("sec-websocket-key").iter().collect();
    let [key] = keys[..] else {
        panic!("{keys:?}");
    };
    let theirs = theirs.get_all("sec-websocket-key");
    assert!(!theirs.iter().any(|their| their == key), "a key of theirs");
    let key = key.to_str().ok()?.to_owned();
    let asked = Asked::of(&mut parts, &Names::of([]));
    let Some(asked) = asked else {
        panic!("it is not asked for");
    };
    let mut headers = HeaderMap::new();
    asked.ask(&mut headers);
    assert_eq!(headers["connection"], "Upgrade");
    assert_eq!(headers["upgrade"], "websocket");
    Some((asked, key))
}

/// It opens with 101, to WebSocket alone, and the one accept; 2xx is an error, and everything else passes.
fn judged(asked: Asked, response: Response<()>, said: &[(HeaderName, HeaderValue)], accept: &str) {
    let of = |name: &'static str| {
        let named = said.iter().filter(move |(known, _)| known == name);
        named.map(|(_, value)| value.as_bytes())
    };
    let protocols: Vec<_> = of("upgrade")
        .filter(|value| {
            value
                .iter()
                .all(|byte| matches!(byte, b' '..b'\x7f' | b'\t'))
        })
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(|protocol| protocol.trim_ascii().to_ascii_lowercase())
        .filter(|protocol| !protocol.is_empty())
        .collect();
    let websocket = !protocols.is_empty() && protocols.iter().all(|it| it == b"websocket");
    let accepted = of("sec-websocket-accept").eq([accept.as_bytes()]);
    let status = response.status().as_u16();
    let (mut parts, ()) = response.into_parts();
    match (status, answered(Some(asked), &parts)) {
        (101, Ok(Some(switch))) => {
            assert!(websocket && accepted, "it opens though it should not");
            switch.tell(&mut parts);
            assert_eq!(parts.status, StatusCode::OK);
            assert!(!parts.headers.contains_key("sec-websocket-accept"));
        }
        (101, Err(_)) => assert!(!websocket || !accepted, "it does not open though it should"),
        (200..300, outcome) => assert!(outcome.is_err(), "an answer opens it"),
        (_, outcome) => assert!(matches!(outcome, Ok(None))),
    }
}

/// RFC 6455 §4.2.2.
fn accept(key: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest = aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
        text.as_bytes(),
    );
    STANDARD.encode(digest)
}
