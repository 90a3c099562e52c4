//! Names of fields: which are ours, which are a client's claims about itself, which belong to one hop, which nobody can
//! nominate away.
//!
//! One part of the header policy: here names are told apart, in `request` and `response` something is done about them.

use http::{HeaderMap, HeaderName, HeaderValue, Response, header};

use crate::config;

/// What configuration chooses of fields.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub(super) user: HeaderName,
    pub(super) gitspace: HeaderName,
    /// None: apps get no assertion.
    pub(super) assertion: Option<HeaderName>,
    /// None: apps get no identifier of the request.
    pub(super) request_id: Option<HeaderName>,
    /// What answers over TLS say in `Strict-Transport-Security` (RFC 6797). None: what the app says.
    hsts: Option<HeaderValue>,
    /// Those above and those that are to be removed, as [`dashed`] writes them.
    removed: Box<[Box<str>]>,
}

impl Names {
    /// Reads them, or names the one that is no header name.
    pub(crate) fn new(headers: &config::Headers) -> Result<Self, String> {
        let name = |key: &str, text: &str| {
            HeaderName::try_from(text).map_err(|_| {
                format!("`gateway.headers.{key}` is {text:?}, which is no header name")
            })
        };
        let optional = |key, text: &str| match text {
            "" => Ok(None),
            text => name(key, text).map(Some),
        };
        let hsts = match &*headers.hsts {
            "" => None,
            text => Some(HeaderValue::try_from(text).map_err(|_| {
                format!("`gateway.headers.hsts` is {text:?}, which no header can hold")
            })?),
        };
        let user = name("user", &headers.user)?;
        let gitspace = name("gitspace", &headers.gitspace)?;
        let assertion = optional("assertion", &headers.assertion)?;
        let request_id = optional("request_id", &headers.request_id)?;
        let listed = headers.remove.iter().map(|text| name("remove", text));
        let listed = listed.collect::<Result<Vec<_>, _>>()?;
        let removed = [&user, &gitspace]
            .into_iter()
            .chain(&assertion)
            .chain(&request_id)
            .chain(&listed)
            .map(|name| dashed(name.as_str()).into_boxed_str())
            .collect();
        Ok(Self {
            user,
            gitspace,
            assertion,
            request_id,
            hsts,
            removed,
        })
    }

    /// Whether apps get an assertion.
    pub(crate) fn wants_assertion(&self) -> bool {
        self.assertion.is_some()
    }

    /// Sets our policy of transport security in place of an app's: the host is the operator's. In the clear it would mean nothing
    /// (RFC 6797 §7.2).
    pub(crate) fn secure<B>(&self, response: &mut Response<B>, over_tls: bool) {
        if let Some(policy) = self.hsts.as_ref().filter(|_| over_tls) {
            let headers = response.headers_mut();
            headers.insert(header::STRICT_TRANSPORT_SECURITY, policy.clone());
        }
    }

    /// Whether this is a claim of a client about who it is, where it came from or what it asked for; or a name of ours.
    /// CGI and its heirs cannot tell `_` and other signs from `-`: every spelling that an app may take for one is one.
    pub(super) fn is_claim(&self, name: &str) -> bool {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let known = |name: &str| self.removed.iter().any(|own| **own == *name) || claims(name);
        if name.bytes().all(plain) {
            return known(name);
        }
        // By another spelling, what frames or secures a message is a claim too: `content_length`.
        let name = dashed(name);
        known(&name) || one_hop(&name) || protected(&name)
    }
}

/// The name with every sign read as `-`.
fn dashed(name: &str) -> String {
    let dash = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    name.chars().map(dash).collect()
}

/// By its first letter, so that the names of everyday requests are told in one look.
fn claims(name: &str) -> bool {
    let (families, names): (&[&str], &[&str]) = match name.as_bytes().first() {
        Some(b'x') => (X_FAMILIES, X_NAMES),
        Some(b'c') => (
            &["cf-connecting-", "client-cert"],
            &[
                "cf-access-authenticated-user-email",
                "cf-pseudo-ipv4",
                "cf-visitor",
                "client-ip",
                "cluster-client-ip",
            ],
        ),
        Some(b'f') => (&["forwarded"], &["fastly-client-ip", "front-end-https"]),
        // `Proxy` becomes HTTP_PROXY in CGI ("httpoxy").
        Some(b'p') => (&[], &["proxy"]),
        Some(b'r') => (&["remote-"], &["real-ip"]),
        Some(b's') => (&["ssl-client-"], &[]),
        Some(b't') => (&["tailscale-user-"], &["true-client-ip"]),
        Some(b'w') => (&["wl-proxy-"], &[]),
        _ => return false,
    };
    families.iter().any(|family| name.starts_with(family)) || names.contains(&name)
}

const X_FAMILIES: &[&str] = &[
    "x-appengine-",
    "x-auth-request-",
    "x-authenticated-",
    "x-authentik-",
    "x-azure-",
    "x-client-cert",
    "x-client-verify",
    "x-envoy-",
    "x-forward",
    "x-gitspace-",
    "x-goog-authenticated-user-",
    "x-ms-client-principal",
    "x-original-",
    "x-remote-",
    "x-ssl-",
    "x-webauth-",
];

const X_NAMES: &[&str] = &[
    "x-amzn-oidc-identity",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-custom-ip-authorization",
    "x-host",
    "x-http-host-override",
    "x-originating-ip",
    "x-proxy-url",
    "x-proxyuser-ip",
    "x-real-ip",
    "x-real-port",
    "x-rewrite-url",
    "x-scheme",
    "x-true-client-ip",
    "x-url-scheme",
];

/// Whether a field is for one hop only (RFC 9110 §7.6.1), whoever sends it. All of `Proxy-` is: what one proxy says to the next,
/// and what we say ourselves (`Proxy-Status`, RFC 9209).
pub(super) fn one_hop(name: &str) -> bool {
    matches!(
        name,
        "connection" | "keep-alive" | "te" | "transfer-encoding" | "upgrade" | "http2-settings"
    ) || name.starts_with("proxy-")
}

/// What frames, routes, identifies, secures, caches or dates a message: `Connection` cannot take it away, and it does not come
/// after the body (RFC 9110 §6.5.1).
pub(super) fn protected(name: &str) -> bool {
    const FAMILIES: &[&str] = &[
        "access-control-",
        "content-",
        "cross-origin-",
        "if-",
        "sec-",
        "set-cookie",
        "strict-transport-security",
        "www-authenticate",
        "x-content-type-options",
        "x-forwarded-",
        "x-frame-options",
        "x-gitspace-",
    ];
    const NAMES: &[&str] = &[
        "age",
        "allow",
        "authorization",
        "cache-control",
        "clear-site-data",
        "cookie",
        "date",
        "expect",
        "expires",
        "forwarded",
        "host",
        "location",
        "max-forwards",
        "origin",
        "permissions-policy",
        "pragma",
        "range",
        "referer",
        "referrer-policy",
        "retry-after",
        "trailer",
        "vary",
        "via",
    ];
    FAMILIES.iter().any(|family| name.starts_with(family)) || NAMES.contains(&name)
}

/// What an app may not say to browsers: it would act beyond the app, or is ours to say.
pub(super) fn not_the_apps(name: &str) -> bool {
    matches!(
        name,
        // Would lead clients past the gateway, or lock them out of the host.
        "alt-svc" | "public-key-pins" | "public-key-pins-report-only"
    ) || name.starts_with("x-gitspace-")
}

/// Digests of the content may come after it (RFC 9530 §6).
fn digest(name: &str) -> bool {
    matches!(name, "content-digest" | "content-md5")
}

/// Leaves in trailers, of either side, what may come after a body: nothing that frames, routes, identifies or secures, nothing for
/// one hop, no cookie, no claim.
pub(in crate::gateway::forward) fn scrub_trailers(trailers: &mut HeaderMap, names: &Names) {
    remove_all(trailers, |name| {
        (protected(name) && !digest(name))
            || one_hop(name)
            || not_the_apps(name)
            || names.is_claim(name)
    });
}

/// Removes every field whose name is meant.
pub(super) fn remove_all(headers: &mut HeaderMap, meant: impl Fn(&str) -> bool) {
    let names: Vec<HeaderName> = headers
        .keys()
        .filter(|name| meant(name.as_str()))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new(&config::Headers::default()).unwrap()
    }

    #[test]
    fn claims_are_claims_in_every_spelling() {
        for name in [
            "x-forwarded-for",
            "x-forwarded-prefix",
            "x_forwarded_for",
            "x-forwarded_host",
            "x.forwarded.for",
            "x~forwarded~for",
            "forwarded",
            "forwarded-for",
            "x-forward-for",
            "x-real-ip",
            "x-gitspace-user",
            "x_gitspace_user",
            "x-gitspace-anything",
            "true-client-ip",
            "true_client_ip",
            "x-client-ip",
            "x-request-id",
            "x_request_id",
            "cf-connecting-ip",
            "cf-connecting-ipv6",
            "remote-user",
            "remote_addr",
            "x-ssl-client-verify",
            "client-cert-chain",
            "proxy",
            "front-end-https",
            "content_length",
            "transfer_encoding",
            "transfer.encoding",
            "sec_fetch_site",
        ] {
            assert!(names().is_claim(name), "{name}");
        }
        for name in [
            "x-csrf-token",
            "traceparent",
            "cookie",
            "user-agent",
            "x_custom",
            "x-http-method-override",
            "x-requested-with",
            "x-client-data",
            "x-amzn-trace-id",
            "x-api-key",
            "referer",
            "cf-ray",
        ] {
            assert!(!names().is_claim(name), "{name}");
        }
    }

    #[test]
    fn configuration_renames_ours_and_adds_to_what_goes() {
        let names = Names::new(&config::Headers {
            user: "Remote-Login".into(),
            request_id: String::new(),
            remove: vec!["X-Internal-Role".into()],
            ..config::Headers::default()
        })
        .unwrap();
        for name in ["remote-login", "remote_login", "x-internal_role"] {
            assert!(names.is_claim(name), "{name}");
        }
        assert!(!names.is_claim("x-request-id"), "it is the app's then");
        assert!(
            names.is_claim("x-gitspace-user"),
            "the family is always ours"
        );
    }

    #[test]
    fn trailers_keep_what_may_come_after_a_body() {
        let mut trailers = HeaderMap::new();
        for name in [
            "grpc-status",
            "server-timing",
            "content-digest",
            "etag",
            "x-checksum",
            "content-length",
            "transfer-encoding",
            "host",
            "set-cookie",
            "cookie",
            "authorization",
            "x-forwarded-for",
            "x_forwarded_for",
            "x-gitspace-user",
            "proxy-status",
            "strict-transport-security",
            "connection",
            "content-type",
            "te",
            "trailer",
            "alt-svc",
        ] {
            trailers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        scrub_trailers(&mut trailers, &names());
        let kept: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        let expected = [
            "grpc-status",
            "server-timing",
            "content-digest",
            "etag",
            "x-checksum",
        ];
        assert_eq!(kept, expected);
    }
}
