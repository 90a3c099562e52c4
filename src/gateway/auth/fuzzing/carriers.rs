//! The fuzz target of the carriers together: which token of a request counts, and what is left, as docs/authentication.md has it.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{
    HeaderName, HeaderValue, Method, Request, Uri,
    header::{AUTHORIZATION, COOKIE},
    request::Parts,
};

use super::{
    super::{Authentication, SESSION_COOKIE},
    claims::members,
    fixture::{FIXTURE, HOST, ISSUER, Is},
    stripping::{TOKEN_COOKIE, cookies_hold, plain, query_holds},
};
use crate::gateway::fuzzing::lines;

/// So many carriers are looked at.
const MAX: usize = 8;

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Anonymous,
    Refused,
    Ticket,
    Principal { name: String, by_cookie: bool },
}

/// Where a value is, as far as it matters to what it is worth.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Session,
    Header,
    Query,
    TokenCookie,
}

/// `!` (a page is opened) or `^` (a form is posted) or nothing, then a request target; then a field a line. The bytes 1 to 8 stand for
/// tokens and sessions.
pub fn carriers(data: &[u8]) {
    let data = FIXTURE.filled(data);
    let mut lines = lines(&data);
    let target = lines.next().unwrap_or_default();
    let (method, navigation, target) = match target {
        [b'!', rest @ ..] => (Method::GET, true, rest),
        [b'^', rest @ ..] => (Method::POST, true, rest),
        _ => (Method::GET, false, target),
    };
    let Ok(uri) = Uri::try_from(target) else {
        return;
    };
    if !target.starts_with(b"/") {
        return;
    }
    let (mut parts, ()) = Request::new(()).into_parts();
    (parts.method, parts.uri) = (method, uri);
    for line in lines.take(32) {
        let mut halves = line.splitn(2, |byte| *byte == b':');
        let name = HeaderName::from_bytes(halves.next().unwrap_or_default());
        let value = HeaderValue::from_bytes(halves.next().unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            parts.headers.append(name, value);
        }
    }
    let before = parts.clone();
    let Some(carried) = carried(&before) else {
        return;
    };
    let navigation = navigation && before.method == Method::GET;
    let expected = counts(&carried, navigation);
    let found = match FIXTURE.authenticate(&mut parts, HOST, navigation, 0) {
        Authentication::Anonymous => Found::Anonymous,
        Authentication::Refused(_) => Found::Refused,
        Authentication::Ticket(_) => Found::Ticket,
        Authentication::Principal {
            principal,
            by_cookie,
            ..
        } => Found::Principal {
            name: principal.name.as_ref().into(),
            by_cookie,
        },
    };
    assert_eq!(found, expected, "another carrier counts");
    holds(&before, &parts);
}

/// All that a request carries of ours, in the order in which it counts. None: whether something is ours is not for this reading to say.
fn carried(parts: &Parts) -> Option<Vec<(Place, Vec<u8>)>> {
    let mut first = Vec::new();
    let mut last = Vec::new();
    let fields = parts.headers.get_all(COOKIE).iter();
    for pair in fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';')) {
        let at = pair.iter().position(|byte| *byte == b'=');
        let (name, value) = at.map_or((pair, &pair[pair.len()..]), |at| {
            (&pair[..at], &pair[at + 1..])
        });
        let value = value.trim_ascii().to_vec();
        if name.trim_ascii() == SESSION_COOKIE.as_bytes() {
            first.push((Place::Session, value));
        } else if name.trim_ascii() == TOKEN_COOKIE.as_bytes() && ours(&value)? {
            last.push((Place::TokenCookie, value));
        }
    }
    for field in parts.headers.get_all("x-gitspace-token") {
        first.push((Place::Header, field.as_bytes().trim_ascii().to_vec()));
    }
    for field in parts.headers.get_all(AUTHORIZATION) {
        if let Some(token) = bearer(field.as_bytes())
            && ours(token)?
        {
            first.push((Place::Header, token.to_vec()));
        }
    }
    for wanted in ["gitspace_token", "token"] {
        let query = parts.uri.query().unwrap_or_default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = plain(value.as_bytes());
            if plain(name.as_bytes()) == wanted.as_bytes()
                && (wanted == "gitspace_token" || ours(&value)?)
            {
                first.push((Place::Query, value));
            }
        }
    }
    first.retain(|(_, value)| !value.is_empty());
    first.extend(last);
    first.truncate(MAX);
    Some(first)
}

/// The first valid one; of a page that is opened a ticket in its URL before all others.
fn counts(carried: &[(Place, Vec<u8>)], navigation: bool) -> Found {
    let worth = |place: Place, value: &[u8]| match (place, FIXTURE.worth(value)) {
        (Place::Session, Is::Session) => Some("alice"),
        (Place::Header | Place::Query | Place::TokenCookie, Is::Access(name)) => Some(name),
        _ => None,
    };
    let ticket = |(place, value): &(Place, Vec<u8>)| {
        *place == Place::Query && FIXTURE.worth(value) == Is::Ticket
    };
    if navigation && carried.iter().any(ticket) {
        return Found::Ticket;
    }
    let mut valid = carried
        .iter()
        .filter_map(|(place, value)| Some((*place, worth(*place, value)?)));
    match valid.next() {
        Some((place, name)) => Found::Principal {
            name: name.into(),
            by_cookie: matches!(place, Place::Session | Place::TokenCookie),
        },
        None if carried.is_empty() => Found::Anonymous,
        None => Found::Refused,
    }
}

fn bearer(field: &[u8]) -> Option<&[u8]> {
    let scheme = field.get(..7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| field[7..].trim_ascii())
}

/// Whether a text is a token of a configured issuer, good or bad. None: it names several.
fn ours(token: &[u8]) -> Option<bool> {
    let parts: Vec<&[u8]> = token.split(|byte| *byte == b'.').collect();
    let [_, claims, _] = parts[..] else {
        return Some(false);
    };
    let Ok(json) = URL_SAFE_NO_PAD.decode(claims) else {
        return Some(false);
    };
    let claims: Result<serde_json::Map<_, _>, _> = serde_json::from_slice(&json);
    let Ok(claims) = claims else {
        return Some(false);
    };
    let single = members(&json) == claims.len();
    let issuer = claims.get("iss").and_then(|issuer| issuer.as_str());
    single.then_some(issuer.is_some_and(|name| name == ISSUER || name == "https://other.test"))
}

/// Everything of ours is gone, and everything else is as it was.
fn holds(before: &Parts, after: &Parts) {
    let ours = |token: &[u8]| ours(token).unwrap_or(true);
    let cookies: Vec<HeaderValue> = before.headers.get_all(COOKIE).iter().cloned().collect();
    cookies_hold(&cookies, after, &ours);
    query_holds(&before.uri, &after.uri, &ours);
    let others = |parts: &Parts| -> Vec<(HeaderName, HeaderValue)> {
        let fields = parts.headers.iter();
        let others = fields.filter(|(name, value)| {
            let token = bearer(value.as_bytes()).filter(|_| **name == AUTHORIZATION);
            **name != COOKIE
                && name.as_str().replace('_', "-") != "x-gitspace-token"
                && !token.is_some_and(ours)
        });
        let mut others: Vec<_> = others
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        // Fields of different names have no order among them; the sort keeps that of one name.
        others.sort_by(|one, other| one.0.as_str().cmp(other.0.as_str()));
        others
    };
    assert_eq!(
        others(before),
        others(after),
        "an app's fields were touched"
    );
    let left = after.headers.iter().filter(|(name, _)| **name != COOKIE);
    assert_eq!(
        left.count(),
        others(after).len(),
        "a token is left in a field"
    );
}
