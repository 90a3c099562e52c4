//! An upstream's head becomes a client's: an app can neither set nor clear our cookies, nor speak for the gateway.
//!
//! One part of the header policy.

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use crate::gateway::auth::OUR_COOKIES;

use super::{add_via, names::not_the_apps, strip};

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");
/// What `*` stands for without the cookies (W3C Clear Site Data §3.1).
const ALL_BUT_COOKIES: &str = "\"cache\", \"clientHints\", \"executionContexts\", \"storage\"";

/// Makes an upstream's head, which came in the version `received`, a client's.
pub(in crate::gateway::forward) fn to_client(headers: &mut HeaderMap, received: Version) {
    strip(headers, not_the_apps);
    if headers.contains_key(header::SET_COOKIE) {
        keep_only(headers, &header::SET_COOKIE, |value| !sets_ours(value));
    }
    if headers.contains_key(CLEAR_SITE_DATA) {
        keep_cookies(headers);
    }
    add_via(headers, received);
}

/// Whether a browser could take this for one of our cookies: in any case, with spaces around the name, or as a cookie without a name,
/// whose value some browsers send back as if it were a whole one (RFC 6265bis §5.6).
fn sets_ours(value: &HeaderValue) -> bool {
    let cookie = value.as_bytes().split(|byte| *byte == b';').next();
    let mut parts = cookie
        .unwrap_or_default()
        .split(|byte| *byte == b'=')
        .map(trimmed);
    let name = parts.find(|part| !part.is_empty()).unwrap_or_default();
    OUR_COOKIES
        .iter()
        .any(|ours| name.eq_ignore_ascii_case(ours.as_bytes()))
}

/// Without what some reader may take for space around a name: control characters too.
fn trimmed(mut part: &[u8]) -> &[u8] {
    let space = |byte: u8| byte <= b' ' || byte == 0x7f;
    while let [first, rest @ ..] = part
        && space(*first)
    {
        part = rest;
    }
    while let [rest @ .., last] = part
        && space(*last)
    {
        part = rest;
    }
    part
}

/// `Clear-Site-Data: "cookies"` clears those of the whole domain: our session, and everything of other gitspaces under it. The
/// rest is the app's own.
fn keep_cookies(headers: &mut HeaderMap) {
    let types: Vec<Vec<u8>> = headers
        .get_all(CLEAR_SITE_DATA)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|kind| kind.trim_ascii().to_vec())
        .collect();
    let bare = |kind: &[u8]| {
        let quote = |byte: &u8| *byte == b'"' || byte.is_ascii_whitespace();
        kind.iter()
            .filter(|byte| !quote(byte))
            .map(u8::to_ascii_lowercase)
            .collect::<Vec<u8>>()
    };
    let clears = |kind: &Vec<u8>| matches!(&*bare(kind), b"cookies" | b"*");
    if !types.iter().any(clears) {
        return;
    }
    let mut kept: Vec<&[u8]> = types
        .iter()
        .filter(|kind| !clears(kind) && !kind.is_empty())
        .map(Vec::as_slice)
        .collect();
    if types.iter().any(|kind| bare(kind) == b"*") {
        kept = vec![ALL_BUT_COOKIES.as_bytes()];
    }
    headers.remove(CLEAR_SITE_DATA);
    // Pieces of valid values with a comma between them are a valid value.
    if let (false, Ok(value)) = (
        kept.is_empty(),
        HeaderValue::from_bytes(&kept.join(&b", "[..])),
    ) {
        headers.insert(CLEAR_SITE_DATA, value);
    }
}

fn keep_only(headers: &mut HeaderMap, name: &HeaderName, keep: impl Fn(&HeaderValue) -> bool) {
    if headers.get_all(name).iter().all(&keep) {
        return;
    }
    let kept: Vec<HeaderValue> = headers
        .get_all(name)
        .iter()
        .filter(|value| keep(value))
        .cloned()
        .collect();
    headers.remove(name);
    for value in kept {
        headers.append(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::map, *};

    #[test]
    fn an_app_cannot_touch_our_cookie() {
        for cookie in [
            "__Host-gitspace=stolen; Path=/",
            "__host-gitspace =; Max-Age=0",
            "\t__Host-GITSPACE\t=x",
            "=__Host-gitspace=x",
            "= = __Host-gitspace = x",
            "__Host-gitspace",
            " __Host-gitspace; Secure",
        ] {
            let mut headers = map(&[("set-cookie", "app=1")]);
            headers.append("set-cookie", HeaderValue::from_static(cookie));
            to_client(&mut headers, Version::HTTP_11);
            let kept: Vec<_> = headers.get_all("set-cookie").iter().collect();
            assert_eq!(kept, ["app=1"], "{cookie:?}");
        }
        for other in [
            "x=__Host-gitspace=fine",
            "__Host-gitspace2=1",
            "__Host-other=1; x=__Host-gitspace",
            "my__Host-gitspace=1",
            "",
        ] {
            assert!(!sets_ours(&HeaderValue::from_static(other)), "{other:?}");
        }
    }

    #[test]
    fn an_app_clears_what_is_its_own_and_no_cookies() {
        for (said, expected) in [
            ("\"cookies\"", None),
            ("\"Cookies\"", None),
            ("cookies", None),
            (
                "\"cache\", \"cookies\", \"storage\"",
                Some("\"cache\", \"storage\""),
            ),
            ("\"cache\",\"cookies\"", Some("\"cache\"")),
            ("\"*\"", Some(ALL_BUT_COOKIES)),
            ("\"cache\", \"*\"", Some(ALL_BUT_COOKIES)),
            ("\"cache\",  \"storage\"", Some("\"cache\",  \"storage\"")),
        ] {
            let mut headers = map(&[("clear-site-data", said)]);
            keep_cookies(&mut headers);
            let kept = headers
                .get("clear-site-data")
                .map(|value| value.to_str().unwrap());
            assert_eq!(kept, expected, "{said}");
        }
    }

    #[test]
    fn an_app_does_not_speak_for_the_gateway() {
        let mut headers = map(&[
            ("proxy-status", "cde-gateway; error=connection_refused"),
            ("x-gitspace-user", "eve"),
            ("alt-svc", "h3=\":443\"; ma=86400"),
            ("public-key-pins", "max-age=5184000"),
            ("refresh", "5"),
        ]);
        to_client(&mut headers, Version::HTTP_10);
        assert_eq!(
            headers,
            map(&[("refresh", "5"), ("via", "1.0 cde-gateway")])
        );
    }
}
