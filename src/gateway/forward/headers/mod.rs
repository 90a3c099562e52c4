//! The header policy: what an upstream gets, and what a client gets back.
//!
//! Fields for one hop and those that `Connection` nominates go no further (RFC 9110 §7.6.1). Whatever a client says about who it
//! is and where it came from is removed, under every spelling; ours is set exactly once. What frames, identifies or secures a
//! message cannot be nominated away. An app can neither set nor clear what is the gateway's.
//!
//! Which names are which is in [`names`]; [`request`] makes an upstream's head, [`response`] a client's; [`prefix`] is for apps that
//! are reached by a path.

mod names;
mod prefix;
mod request;
mod response;

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use crate::gateway::http::nominated;

pub(crate) use names::Names;
pub(super) use names::scrub_trailers;
pub(crate) use prefix::Prefix;
pub(crate) use request::Forwarding;
pub(super) use request::to_upstream;
pub(super) use response::to_client;

use names::{one_hop, protected, remove_all};

const PSEUDONYM: &str = "cde-gateway";

/// Adds ourselves to the message's way, with the version in which it came (RFC 9110 §7.6.3).
fn add_via(headers: &mut HeaderMap, received: Version) {
    let hop = match received {
        Version::HTTP_2 => "2.0 cde-gateway",
        Version::HTTP_10 | Version::HTTP_09 => "1.0 cde-gateway",
        _ => "1.1 cde-gateway",
    };
    headers.append(header::VIA, HeaderValue::from_static(hop));
}

/// Removes what `Connection` nominates, what is for one hop, and what else is meant.
fn strip(headers: &mut HeaderMap, meant: impl Fn(&str) -> bool) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = nominated(headers)
            .filter_map(|name| HeaderName::from_bytes(name).ok())
            .filter(|name| !protected(name.as_str()))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    remove_all(headers, |name| one_hop(name) || meant(name));
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn hop_by_hop_and_nominated_fields_go() {
        let mut headers = map(&[
            ("connection", "close, x-private,, \t x-other ,X-Third"),
            ("connection", "\"quoted\", x-fourth"),
            ("x-private", "1"),
            ("x-other", "1"),
            ("x-third", "1"),
            ("x-fourth", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("proxy-authorization", "Basic x"),
            ("proxy-anything", "x"),
            ("http2-settings", "AAMAAABkAAQAAP__"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("accept", "*/*"),
        ]);
        strip(&mut headers, |_| false);
        assert_eq!(headers, map(&[("accept", "*/*")]));
    }

    #[test]
    fn what_frames_identifies_or_secures_cannot_be_nominated() {
        let stays = map(&[
            ("cookie", "a=1"),
            ("content-length", "5"),
            ("content-type", "text/plain"),
            ("authorization", "Basic x"),
            ("origin", "https://a.test"),
            ("sec-fetch-site", "same-origin"),
            ("set-cookie", "a=1"),
            ("cache-control", "no-store"),
            ("access-control-allow-origin", "https://a.test"),
            ("x-frame-options", "DENY"),
            ("location", "/"),
            ("date", "now"),
        ]);
        let mut headers = stays.clone();
        let all: Vec<_> = stays.keys().map(HeaderName::as_str).collect();
        headers.insert(header::CONNECTION, all.join(", ").parse().unwrap());
        strip(&mut headers, |_| false);
        assert_eq!(headers, stays);
    }
}
