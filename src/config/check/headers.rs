//! `[gateway.headers]`: names that apps get, names that they do not, and a policy of transport security.

use super::Findings;
use crate::config::Headers;

/// Fields that belong to HTTP, to the client or to the gateway; an upstream header of ours cannot have their names, and none of
/// them can be removed by name.
const RESERVED: &[&str] = &[
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "max-forwards",
    "origin",
    "proxy-authorization",
    "set-cookie",
    "te",
    "traceparent",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-gitspace-assertion",
    "x-gitspace-token",
    "x-request-id",
];

pub(super) fn check(headers: &Headers, findings: &mut Findings) {
    // Each with its default, which is reserved for the others only.
    let named = [
        ("user", &headers.user, "X-Gitspace-User"),
        ("gitspace", &headers.gitspace, "X-Gitspace-Id"),
        ("assertion", &headers.assertion, "X-Gitspace-Assertion"),
        ("request_id", &headers.request_id, "X-Request-Id"),
    ];
    for (index, (key, name, default)) in named.into_iter().enumerate() {
        let may_be_empty = matches!(key, "assertion" | "request_id");
        if name.is_empty() && may_be_empty {
            continue;
        }
        if !name.eq_ignore_ascii_case(default) {
            field(&format!("gateway.headers.{key}"), name, default, findings);
        }
        let before = &named[..index];
        if let Some((other, ..)) = before
            .iter()
            .find(|(_, other, _)| other.eq_ignore_ascii_case(name))
        {
            findings.add(
                format!("gateway.headers.{key}"),
                format!("is {name:?}, like `gateway.headers.{other}`"),
                "give the two headers different names",
            );
        }
    }
    for (index, name) in headers.remove.iter().enumerate() {
        let key = format!("gateway.headers.remove[{index}]");
        field(&key, name, "X-Internal-Role", findings);
    }
    if !headers.hsts.is_empty() && !is_hsts(&headers.hsts) {
        findings.add(
            "gateway.headers.hsts",
            format!(
                "is {:?}; max-age=<seconds> is accepted, and behind it includeSubDomains and preload",
                headers.hsts
            ),
            "write a policy such as \"max-age=31536000; includeSubDomains\", or \"\" for none",
        );
    }
}

/// A name of a field that is free for this.
fn field(key: &str, name: &str, example: &str, findings: &mut Findings) {
    let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if name.is_empty() || !name.bytes().all(letters) {
        findings.add(
            key,
            format!("is {name:?}; letters, digits and - are accepted"),
            format!("write a name such as {example:?}"),
        );
    } else if RESERVED.contains(&name.to_ascii_lowercase().as_str()) {
        findings.add(
            key,
            format!("is {name:?}, which has a meaning of its own"),
            format!("write another name, such as {example:?}"),
        );
    }
}

/// RFC 6797 §6.1, each directive once.
fn is_hsts(text: &str) -> bool {
    let mut directives = text.split(';').map(str::trim);
    let seconds = directives
        .next()
        .and_then(|first| first.strip_prefix("max-age="));
    let number = |digits: &str| {
        (1..=10).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
    };
    let rest: Vec<_> = directives.map(str::to_ascii_lowercase).collect();
    seconds.is_some_and(number)
        && matches!(
            rest.iter().map(String::as_str).collect::<Vec<_>>()[..],
            [] | ["includesubdomains"] | ["includesubdomains", "preload"] | ["preload"]
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_of_transport_security_has_its_form() {
        for good in [
            "max-age=0",
            "max-age=31536000; includeSubDomains",
            "max-age=63072000;includeSubDomains; preload",
        ] {
            assert!(is_hsts(good), "{good}");
        }
        for bad in [
            "31536000",
            "max-age=",
            "max-age=1y",
            "includeSubDomains; max-age=1",
            "max-age=1; other",
            "max-age=1\r\nset-cookie: a=1",
        ] {
            assert!(!is_hsts(bad), "{bad}");
        }
    }
}
