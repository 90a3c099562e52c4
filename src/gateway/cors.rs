//! CORS on ports that are not public: whose pages may read them (Fetch §3.2).
//!
//! A browser sends a preflight without credentials, so an app on such a port never sees one: the gateway answers it by the port's
//! policy, which is the gitspace's own hosts and the port's list. In answers the policy takes the place of what the app says: an
//! origin is named only if the policy has it, so no app hands what a session reads to whoever asks. It is no oracle: what is not
//! allowed is answered as if there were no such rule, and a gitspace's own hosts are known by their names alone.
//!
//! Not here: unsafe methods and WebSockets (`authorize`). On public ports CORS is the app's.

use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
        ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, VARY,
    },
    request::Parts,
};

use super::{
    authorize::{Found, belongs, sole_origin},
    forward::Body,
    http::Head,
    route::{Endpoint, Entry},
    status,
};
use crate::api::access::Visibility;

/// How long browsers remember an answer, in seconds. A list that is changed takes effect so much later in pages that are open.
const MAX_AGE: HeaderValue = HeaderValue::from_static("60");
const ORIGIN_WORD: HeaderValue = HeaderValue::from_static("Origin");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// The answer to a preflight, if the policy has its origin. None: it goes on like any other request.
pub(crate) fn preflight(
    request: &Parts,
    head: &Head,
    found: Option<Found<'_>>,
    secure: bool,
    domains: &[Box<str>],
) -> Option<Response<Body>> {
    let headers = &request.headers;
    let method = headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    let origin = sole_origin(headers)?;
    let endpoint = found.and_then(|(_, endpoint)| endpoint);
    if request.method != Method::OPTIONS || is_public(endpoint) {
        return None;
    }
    let entry = found.map(|(entry, _)| entry);
    // Where there is none, the look takes as long.
    let endpoint = endpoint.unwrap_or(Endpoint::absent());
    if !belongs(origin, head, entry, endpoint, secure, domains) {
        return None;
    }
    let mut response = status(StatusCode::NO_CONTENT);
    let answer = response.headers_mut();
    answer.insert(ACCESS_CONTROL_ALLOW_METHODS, method.clone());
    if let Some(wanted) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    answer.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    allow(answer, origin.clone());
    Some(response)
}

/// What an answer of a port says about the origin that asked.
#[derive(Debug)]
pub(crate) enum Policy {
    /// What the app says.
    TheApps,
    /// No page of another origin asks. What the app says then is no secret's guard, but caches keep it.
    Nobody,
    /// Not this one.
    Refused,
    /// This one, with credentials.
    Allowed(HeaderValue),
}

impl Policy {
    /// Of a request that was authorized.
    pub(crate) fn of(
        headers: &HeaderMap,
        head: &Head,
        (entry, endpoint): (&Entry, &Endpoint),
        secure: bool,
        domains: &[Box<str>],
    ) -> Self {
        if is_public(Some(endpoint)) {
            return Self::TheApps;
        }
        match sole_origin(headers) {
            Some(origin) if belongs(origin, head, Some(entry), endpoint, secure, domains) => {
                Self::Allowed(origin.clone())
            }
            Some(_) => Self::Refused,
            None => Self::Nobody,
        }
    }

    /// Puts it into an app's answer.
    pub(crate) fn apply(self, headers: &mut HeaderMap) {
        match self {
            Self::TheApps => {}
            Self::Nobody => silence(headers),
            Self::Refused => {
                silence(headers);
                headers.append(VARY, ORIGIN_WORD);
            }
            Self::Allowed(origin) => allow(headers, origin),
        }
    }
}

fn is_public(endpoint: Option<&Endpoint>) -> bool {
    endpoint.is_some_and(|endpoint| endpoint.visibility == Visibility::Public)
}

fn silence(headers: &mut HeaderMap) {
    headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
    headers.remove(ACCESS_CONTROL_ALLOW_CREDENTIALS);
}

fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
    // Another origin gets another answer.
    headers.append(VARY, ORIGIN_WORD);
}
