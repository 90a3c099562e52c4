//! What a browser goes to as a page, and what it only loads ahead.
//!
//! Not here: whether its user wants it (`wake`), whether that counts as use (`activity`).

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

/// Whether a browser goes there as a page (Fetch Metadata; `Accept` where a client sends none).
pub(super) fn navigates(method: &Method, headers: &HeaderMap) -> bool {
    const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
    if !matches!(*method, Method::GET | Method::HEAD) {
        return false;
    }
    match headers.get(MODE) {
        Some(mode) => mode == "navigate",
        None => headers
            .get(header::ACCEPT)
            .and_then(|accept| accept.to_str().ok())
            .is_some_and(|accept| accept.contains("text/html")),
    }
}

/// Browsers that do not say are taken for it.
pub(super) fn is_top(headers: &HeaderMap) -> bool {
    const DESTINATION: HeaderName = HeaderName::from_static("sec-fetch-dest");
    let destination = headers.get(DESTINATION);
    destination.is_none_or(|destination| destination == "document")
}

/// Whether it is loaded ahead, before anybody goes there: by a browser that guesses, or for a preview.
pub(crate) fn is_ahead(headers: &HeaderMap) -> bool {
    let ahead = |value: &HeaderValue| {
        let value = value.as_bytes().to_ascii_lowercase();
        [&b"prefetch"[..], b"prerender", b"preview"]
            .iter()
            .any(|word| memchr::memmem::find(&value, word).is_some())
    };
    ["sec-purpose", "purpose", "x-purpose", "x-moz"]
        .iter()
        .any(|name| headers.get_all(*name).iter().any(ahead))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )])
    }

    #[test]
    fn navigations_are_recognised() {
        let get = |name, value| navigates(&Method::GET, &one(name, value));
        assert!(get("sec-fetch-mode", "navigate"));
        assert!(!get("sec-fetch-mode", "cors"));
        assert!(get("accept", "text/html,*/*"));
        assert!(!get("accept", "*/*"));
        let mode = one("sec-fetch-mode", "navigate");
        assert!(!navigates(&Method::POST, &mode));
    }

    #[test]
    fn what_is_loaded_ahead_is_recognised_however_it_is_said() {
        for (name, value) in [
            ("sec-purpose", "prefetch"),
            ("sec-purpose", "prefetch;prerender"),
            ("sec-purpose", "prefetch;anonymous-client-ip"),
            ("sec-purpose", "Prerender"),
            ("purpose", "prefetch"),
            ("x-purpose", "preview"),
            ("x-moz", "prefetch"),
        ] {
            assert!(is_ahead(&one(name, value)), "{name}: {value}");
        }
        let mut two = one("purpose", "other");
        two.append("purpose", HeaderValue::from_static("prefetch"));
        assert!(is_ahead(&two));
        for (name, value) in [("sec-fetch-mode", "navigate"), ("purpose", "")] {
            assert!(!is_ahead(&one(name, value)), "{name}: {value}");
        }
    }
}
