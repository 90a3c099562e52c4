//! Where a token can be in a request: finds the carriers and takes them out.
//!
//! Everything of ours leaves the request here, whatever becomes of it; all other bytes stay as they are. Cookies of an
//! HTTP/2 request may come in crumbs (RFC 9113 §8.2.3): they leave in one header. Verifies nothing.

use std::borrow::Cow;

use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{AUTHORIZATION, COOKIE},
    request::Parts,
    uri::PathAndQuery,
};

use super::{OUR_COOKIES, error::TokenError, session};

static TOKEN_HEADER: HeaderName = HeaderName::from_static("x-gitspace-token");
const OUR_PARAMETER: &[u8] = b"gitspace_token";
const FOREIGN_PARAMETER: &[u8] = b"token";
/// So many are looked at; each may cost a verification. More are taken out and forgotten.
const MAX: usize = 8;

/// Where a token was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Our session cookie: no token, but a session.
    Session,
    /// `X-Gitspace-Token` or `Authorization: Bearer`.
    Header,
    /// A query parameter.
    Query,
    /// A configured cookie of another program.
    TokenCookie,
}

/// A token, and what the recogniser found if it was asked.
#[derive(Debug)]
pub(super) struct Carrier<K> {
    pub(super) place: Place,
    pub(super) token: Vec<u8>,
    pub(super) known: Option<K>,
}

/// Takes all carriers of ours out of a request, in the order in which they count.
///
/// `recognise` is asked about tokens under names that are not ours: None leaves them to the app.
pub(super) fn take<K>(
    request: &mut Parts,
    token_cookies: &[Box<str>],
    recognise: impl Fn(&[u8]) -> Option<K>,
) -> Result<Vec<Carrier<K>>, TokenError> {
    let mut taking = Taking {
        found: Vec::new(),
        token_cookies,
        recognise,
    };
    let in_token_cookies = taking.cookies(&mut request.headers);
    taking.token_header(&mut request.headers);
    taking.authorization(&mut request.headers);
    let rebuilt = taking.query(&mut request.uri);
    taking.found.extend(in_token_cookies);
    taking.found.truncate(MAX);
    rebuilt.map(|()| taking.found)
}

/// The value of a cookie of ours; it stays where it is.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let values = headers.get_all(COOKIE).iter();
    let mut pairs = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let (found, value) = split_once(pair, b'=');
        (found.trim_ascii() == name.as_bytes()).then(|| value.trim_ascii())
    })
}

/// A parameter of a query, without its percent-encoding.
pub(crate) fn parameter(query: &str, name: &str) -> Option<Vec<u8>> {
    query
        .as_bytes()
        .split(|byte| *byte == b'&')
        .find_map(|pair| {
            let (found, value) = split_once(pair, b'=');
            is_parameter(found, name.as_bytes()).then(|| decoded(value).into_owned())
        })
}

struct Taking<'a, K, R> {
    found: Vec<Carrier<K>>,
    token_cookies: &'a [Box<str>],
    recognise: R,
}

impl<K, R: Fn(&[u8]) -> Option<K>> Taking<'_, K, R> {
    fn push(&mut self, place: Place, token: &[u8], known: Option<K>) {
        if !token.is_empty() && self.found.len() < MAX {
            self.found.push(Carrier {
                place,
                token: token.into(),
                known,
            });
        }
    }

    /// Rewrites `Cookie` if something is ours or if there are crumbs. Gives what was in cookies of others, which counts last.
    fn cookies(&mut self, headers: &mut HeaderMap) -> Vec<Carrier<K>> {
        let mut last = Vec::new();
        let mut rest = Jar::default();
        let values = headers.get_all(COOKIE);
        let crumbs = values.iter().nth(1).is_some();
        if !crumbs && !values.iter().any(|value| self.may_hold_ours(value)) {
            return last;
        }
        let mut taken = false;
        for value in values {
            if value.is_empty() {
                continue;
            }
            for (index, pair) in value.as_bytes().split(|byte| *byte == b';').enumerate() {
                if self.cookie(pair, &mut last) {
                    taken = true;
                } else {
                    rest.keep(pair, index == 0);
                }
            }
        }
        if taken || crumbs {
            put_cookies(headers, rest.bytes);
        }
        last
    }

    /// Whether a pair has a name that concerns us. Without one nothing is copied.
    fn may_hold_ours(&self, value: &HeaderValue) -> bool {
        value.as_bytes().split(|byte| *byte == b';').any(|pair| {
            let (name, _) = split_once(pair, b'=');
            let name = name.trim_ascii();
            is_ours(name) || self.token_cookies.iter().any(|own| own.as_bytes() == name)
        })
    }

    /// Whether the pair is ours; if so it is noted.
    fn cookie(&mut self, pair: &[u8], last: &mut Vec<Carrier<K>>) -> bool {
        let (name, value) = split_once(pair, b'=');
        let (name, value) = (name.trim_ascii(), value.trim_ascii());
        if name == session::COOKIE.as_bytes() {
            self.push(Place::Session, value, None);
            return true;
        }
        // The others do not say who it is.
        if is_ours(name) {
            return true;
        }
        if !self.token_cookies.iter().any(|own| own.as_bytes() == name) {
            return false;
        }
        let Some(known) = (self.recognise)(value) else {
            return false;
        };
        if last.len() < MAX {
            last.push(Carrier {
                place: Place::TokenCookie,
                token: value.into(),
                known: Some(known),
            });
        }
        true
    }

    /// Our own header, also under the spellings with `_` that CGI-like servers cannot tell from it.
    fn token_header(&mut self, headers: &mut HeaderMap) {
        for value in headers.get_all(&TOKEN_HEADER) {
            self.push(Place::Header, value.as_bytes().trim_ascii(), None);
        }
        headers.remove(&TOKEN_HEADER);
        while let Some(name) = headers
            .keys()
            .find(|name| is_spelling(name.as_str()))
            .cloned()
        {
            headers.remove(name);
        }
    }

    fn authorization(&mut self, headers: &mut HeaderMap) {
        let mut kept = Vec::new();
        let mut taken = false;
        for value in headers.get_all(AUTHORIZATION) {
            let known =
                bearer(value).and_then(|token| (self.recognise)(token).map(|known| (token, known)));
            match known {
                Some((token, known)) => {
                    taken = true;
                    self.push(Place::Header, token, Some(known));
                }
                None => kept.push(value.clone()),
            }
        }
        if taken {
            headers.remove(AUTHORIZATION);
            for value in kept {
                headers.append(AUTHORIZATION, value);
            }
        }
    }

    fn query(&mut self, uri: &mut Uri) -> Result<(), TokenError> {
        let Some(query) = uri.query() else {
            return Ok(());
        };
        let mut ours = Vec::new();
        let mut foreign = Vec::new();
        let mut rest = Vec::new();
        let mut taken = false;
        for pair in query.as_bytes().split(|byte| *byte == b'&') {
            let (name, value) = split_once(pair, b'=');
            if is_parameter(name, OUR_PARAMETER) {
                ours.push(decoded(value));
                taken = true;
                continue;
            }
            if is_parameter(name, FOREIGN_PARAMETER) {
                let value = decoded(value);
                if let Some(known) = (self.recognise)(&value) {
                    foreign.push((value, known));
                    taken = true;
                    continue;
                }
            }
            rest.push(pair);
        }
        if !taken {
            return Ok(());
        }
        for token in ours {
            self.push(Place::Query, &token, None);
        }
        for (token, known) in foreign {
            self.push(Place::Query, &token, Some(known));
        }
        *uri = with_query(uri, &rest).ok_or(TokenError::Target)?;
        Ok(())
    }
}

/// The cookies that stay.
#[derive(Default)]
struct Jar {
    bytes: Vec<u8>,
    begun: bool,
}

impl Jar {
    fn keep(&mut self, pair: &[u8], first_of_header: bool) {
        match (self.begun, first_of_header) {
            (false, true) => self.bytes.extend_from_slice(pair),
            (false, false) => self.bytes.extend_from_slice(pair.trim_ascii_start()),
            (true, true) => {
                self.bytes.extend_from_slice(b"; ");
                self.bytes.extend_from_slice(pair.trim_ascii_start());
            }
            (true, false) => {
                self.bytes.push(b';');
                self.bytes.extend_from_slice(pair);
            }
        }
        self.begun = true;
    }
}

fn put_cookies(headers: &mut HeaderMap, rest: Vec<u8>) {
    // Pieces of valid values with `;` and spaces between are a valid value.
    match HeaderValue::from_maybe_shared(bytes::Bytes::from(rest)) {
        Ok(value) if !value.as_bytes().trim_ascii().is_empty() => {
            headers.insert(COOKIE, value);
        }
        _ => {
            headers.remove(COOKIE);
        }
    }
}

fn is_ours(name: &[u8]) -> bool {
    OUR_COOKIES.iter().any(|ours| ours.as_bytes() == name)
}

fn is_spelling(name: &str) -> bool {
    let ours = TOKEN_HEADER.as_str();
    name.len() == ours.len()
        && name
            .bytes()
            .zip(ours.bytes())
            .all(|(byte, own)| byte == own || (own == b'-' && byte == b'_'))
}

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, token) = value.as_bytes().split_at_checked(SCHEME.len())?;
    scheme
        .eq_ignore_ascii_case(SCHEME)
        .then(|| token.trim_ascii())
}

fn split_once(bytes: &[u8], separator: u8) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == separator) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &[]),
    }
}

/// Whether a parameter's name is this one once it is decoded, as the app would do.
fn is_parameter(raw: &[u8], name: &[u8]) -> bool {
    raw.len() >= name.len() && raw.len() <= 3 * name.len() && *decoded(raw) == *name
}

/// Percent-decoded; tokens need none of it, but some encode more than they must.
fn decoded(raw: &[u8]) -> Cow<'_, [u8]> {
    if !raw.contains(&b'%') {
        return Cow::Borrowed(raw);
    }
    let digit = |at: usize| {
        raw.get(at)
            .and_then(|byte| char::from(*byte).to_digit(16))
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let mut text = Vec::with_capacity(raw.len());
    let mut at = 0;
    while let Some(&byte) = raw.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                text.push(16 * high + low);
                at += 3;
            }
            _ => {
                text.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(text)
}

/// The same target with these parameters only.
fn with_query(uri: &Uri, parameters: &[&[u8]]) -> Option<Uri> {
    let mut target = uri.path().as_bytes().to_vec();
    if !parameters.is_empty() {
        target.push(b'?');
        target.extend_from_slice(&parameters.join(&b'&'));
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::from_maybe_shared(bytes::Bytes::from(target)).ok()?);
    Uri::from_parts(parts).ok()
}

/// The path and query as a redirect's target on the same host: exactly one slash at the beginning, since `//evil` and
/// `/\evil` would lead to another one.
pub(crate) fn location(uri: &Uri) -> String {
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    format!("/{}", target.trim_start_matches(['/', '\\']))
}
