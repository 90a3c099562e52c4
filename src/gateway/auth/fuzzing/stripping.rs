//! What must be left of a request when everything of ours was taken out: cookies and query keep their bytes, and nothing of ours is in
//! them. And the fuzz target that asks only this.

use http::{HeaderValue, Request, Uri, header::COOKIE, request::Parts};

use super::super::{OUR_COOKIES, carrier};
use crate::gateway::fuzzing::lines;

/// A cookie of another program that may hold a token.
pub(super) const TOKEN_COOKIE: &str = "their_token";

/// What counts as a token of ours under a name that is not.
type Ours<'a> = &'a dyn Fn(&[u8]) -> bool;

/// A request target, then a `Cookie` field a line.
pub fn cookies(data: &[u8]) {
    let mut lines = lines(data);
    let target = lines.next().unwrap_or_default();
    let uri = Uri::try_from(target).unwrap_or_else(|_| Uri::from_static("/"));
    let fields: Vec<HeaderValue> = lines
        .take(32)
        .filter_map(|line| HeaderValue::from_bytes(line).ok())
        .collect();
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.uri = uri.clone();
    for field in &fields {
        parts.headers.append(COOKIE, field.clone());
    }
    let ours = |token: &[u8]| token.starts_with(b"ey");
    let recognise = |token: &[u8]| ours(token).then_some(());
    if carrier::take(&mut parts, &[TOKEN_COOKIE.into()], recognise).is_err() {
        return;
    }
    cookies_hold(&fields, &parts, &ours);
    query_holds(&uri, &parts.uri, &ours);
}

fn is_ours(pair: &[u8], ours: Ours<'_>) -> bool {
    let mut halves = pair.splitn(2, |byte| *byte == b'=');
    let name = halves.next().unwrap_or_default().trim_ascii();
    let value = halves.next().unwrap_or_default().trim_ascii();
    OUR_COOKIES.iter().any(|ours| name == ours.as_bytes())
        || (name == TOKEN_COOKIE.as_bytes() && ours(value))
}

/// One field at most; the pairs of others in their order, byte for byte.
pub(super) fn cookies_hold(before: &[HeaderValue], after: &Parts, ours: Ours<'_>) {
    let is_ours = |pair: &[u8]| is_ours(pair, ours);
    let mut left = after.headers.get_all(COOKIE).iter();
    let (value, second) = (left.next(), left.next());
    assert!(second.is_none(), "more than one Cookie is left");
    let value = value.map(HeaderValue::as_bytes).unwrap_or_default();
    if let [only] = before
        && !only.as_bytes().split(|byte| *byte == b';').any(is_ours)
    {
        assert_eq!(value, only.as_bytes(), "an app's cookies were touched");
    }
    let pairs = |bytes: &[u8]| -> Vec<Vec<u8>> {
        bytes
            .split(|byte| *byte == b';')
            .map(|pair| pair.trim_ascii().to_vec())
            .filter(|pair| !pair.is_empty())
            .collect()
    };
    let expected: Vec<Vec<u8>> = before
        .iter()
        .flat_map(|field| pairs(field.as_bytes()))
        .filter(|pair| !is_ours(pair))
        .collect();
    assert_eq!(
        pairs(value),
        expected,
        "other cookies than the app's are left"
    );
}

/// The target without our parameters, byte for byte.
pub(super) fn query_holds(before: &Uri, after: &Uri, ours: Ours<'_>) {
    assert_eq!(before.path(), after.path());
    let mine = |pair: &&[u8]| {
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        let name = plain(halves.next().unwrap_or_default());
        let value = plain(halves.next().unwrap_or_default());
        name == b"gitspace_token" || (name == b"token" && ours(&value))
    };
    let split = |uri: &Uri| -> Vec<Vec<u8>> {
        let query = uri.query().unwrap_or_default().as_bytes();
        let pairs = query.split(|byte| *byte == b'&');
        pairs
            .filter(|pair| !mine(pair))
            .map(<[u8]>::to_vec)
            .collect()
    };
    let left = after.query().unwrap_or_default().as_bytes();
    assert!(
        !left.split(|byte| *byte == b'&').any(|pair| mine(&pair)),
        "a token is left in the query"
    );
    let (mut before, mut after) = (split(before), split(after));
    // Without a parameter the query is gone, which an empty one tells apart.
    before.retain(|pair| !pair.is_empty());
    after.retain(|pair| !pair.is_empty());
    assert_eq!(before, after, "an app's parameters were touched");
}

/// Percent-decoded as apps do it.
pub(super) fn plain(raw: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let digits = digits.filter(|two| two.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                text.push(byte);
                rest = &tail[2..];
            }
            _ => {
                text.push(*first);
                rest = tail;
            }
        }
    }
    text
}
