//! `[gateway]`: domains, certificates, issuers, names of cookies.

use std::{net::IpAddr, time::Duration};

use super::{Findings, headers, text};
use crate::config::{Algorithm, Config, Gateway, Issuer, IssuerKey, Role};

pub(super) fn check(config: &Config, findings: &mut Findings) {
    let gateway = &config.gateway;
    domains(config, findings);
    headers::check(&gateway.headers, findings);
    auth(gateway, findings);
    let feed = config.runs(Role::Gateway)
        && (gateway.control_plane.url.is_some() || config.runs(Role::ControlPlane));
    issuers(&gateway.issuer, feed, findings);
    if gateway.workers > 1024 {
        findings.add(
            "gateway.workers",
            format!("is {}; 0 to 1024 are accepted", gateway.workers),
            "write 0 for one thread per core",
        );
    }
}

fn domains(config: &Config, findings: &mut Findings) {
    let domains = &config.gateway.domains;
    if domains.is_empty() && config.runs(Role::Gateway) {
        findings.add(
            "gateway.domains",
            "is empty, so no gitspace has a host",
            "list a domain, such as \"gitspaces.localhost\"",
        );
    }
    for (index, domain) in domains.iter().enumerate() {
        let key = format!("gateway.domains[{index}]");
        if domains[..index].contains(domain) {
            findings.add(&key, format!("{domain:?} is listed twice"), "list it once");
        }
        findings.unless_ok(key, text::dns_name(domain));
    }
}

fn auth(gateway: &Gateway, findings: &mut Findings) {
    for (index, name) in gateway.auth.token_cookies.iter().enumerate() {
        let key = format!("gateway.auth.token_cookies[{index}]");
        let token = |b: u8| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&b);
        if name.is_empty() || !name.bytes().all(token) {
            findings.add(
                key,
                format!("is {name:?}, which is no name of a cookie"),
                "write the cookie's name as it stands before the = sign",
            );
        } else if name.starts_with("__Host-gitspace") {
            findings.add(
                key,
                format!("is {name:?}, which is the gateway's own cookie"),
                "remove it",
            );
        }
    }
    let login = &gateway.auth.login_url;
    if !login.is_empty() && !login.starts_with("https://") && !login.starts_with("http://") {
        findings.add(
            "gateway.auth.login_url",
            format!("is {login:?}; a URL that starts with https:// or http:// is accepted, or \"\" for none"),
            "write a URL such as \"https://login.example.com/start\"",
        );
    }
}

fn issuers(issuers: &[Issuer], feed: bool, findings: &mut Findings) {
    for (index, issuer) in issuers.iter().enumerate() {
        let key = format!("gateway.issuer[{index}]");
        if issuer.issuer.is_empty() {
            findings.add(
                format!("{key}.issuer"),
                "is empty",
                "write the `iss` of its tokens",
            );
        }
        if issuer.gitspace_claim.is_empty() {
            findings.add(
                format!("{key}.gitspace_claim"),
                "is empty",
                "name the claim that holds gitspaces, such as \"gitspace\"",
            );
        }
        let before = &issuers[..index];
        if before.iter().any(|other| other.issuer == issuer.issuer) {
            findings.add(
                format!("{key}.issuer"),
                format!("is {:?}, like another issuer's", issuer.issuer),
                "put all keys of one issuer into one [[gateway.issuer]] table",
            );
        }
        prefix(&key, issuer, before, feed, findings);
        published(&key, issuer, findings);
        keys(&key, issuer, findings);
    }
}

/// Names of two issuers must never meet: equal prefixes let `alice` of one be `alice` of the other.
fn prefix(key: &str, issuer: &Issuer, before: &[Issuer], feed: bool, findings: &mut Findings) {
    let key = format!("{key}.prefix");
    let prefix = &issuer.prefix;
    let default = if prefix.is_empty() {
        " (the default)"
    } else {
        ""
    };
    let change = "write a prefix of its own, such as \"github:\"";
    if let Some(other) = before.iter().find(|other| other.prefix == *prefix) {
        findings.add(
            key,
            format!(
                "is {prefix:?}{default}, like that of issuer {:?}, so that their users would be the same",
                other.issuer
            ),
            change,
        );
    } else if feed && prefix.is_empty() {
        findings.add(
            key,
            format!("is \"\"{default}, like that of the control plane's own users, so that they would be the same"),
            change,
        );
    }
}

/// Whoever can answer for the URL can sign tokens: it must be proven who answers.
fn published(key: &str, issuer: &Issuer, findings: &mut Findings) {
    let Some(url) = &issuer.jwks_url else {
        return;
    };
    let parsed = url.parse::<http::Uri>().ok();
    let host = parsed
        .as_ref()
        .and_then(http::Uri::host)
        .unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let loopback = host == "localhost" || address.is_ok_and(|ip| ip.is_loopback());
    let scheme = parsed.as_ref().and_then(http::Uri::scheme_str);
    let proven = scheme == Some("https") || (scheme == Some("http") && loopback);
    let problem = match () {
        // Not shown: it may be a password.
        () if url.contains(['@', '#']) => Some("holds a user or a fragment".to_owned()),
        () if host.is_empty() || !proven => Some(format!(
            "is {url:?}; an https URL is accepted, or an http one on this machine's loopback"
        )),
        () => None,
    };
    if let Some(problem) = problem {
        findings.add(
            format!("{key}.jwks_url"),
            problem,
            "write the issuer's `jwks_uri`, such as \"https://issuer.example.com/keys\"",
        );
    }
    let shortest = Duration::from_secs(1);
    if issuer.jwks_refresh < shortest || issuer.jwks_stale < issuer.jwks_refresh {
        findings.add(
            format!("{key}.jwks_refresh"),
            format!(
                "is {:?}, with a jwks_stale of {:?}",
                issuer.jwks_refresh, issuer.jwks_stale
            ),
            "write at least \"1s\", and a jwks_stale that is not shorter",
        );
    }
}

fn keys(key: &str, issuer: &Issuer, findings: &mut Findings) {
    if issuer.jwks_file.is_none() && issuer.jwks_url.is_none() && issuer.key.is_empty() {
        findings.add(
            key,
            format!(
                "issuer {:?} has no keys, so none of its tokens could be checked",
                issuer.issuer
            ),
            "add jwks_url or jwks_file, or a [[gateway.issuer.key]] table",
        );
    }
    for (index, single) in issuer.key.iter().enumerate() {
        let key = format!("{key}.key[{index}]");
        if issuer.key[..index]
            .iter()
            .any(|other| other.id == single.id)
        {
            findings.add(
                format!("{key}.id"),
                format!("is {:?}, like another key's", single.id),
                "give each key of an issuer its own `id` (the token's `kid`)",
            );
        }
        key_file(&key, single, findings);
    }
}

fn key_file(key: &str, single: &IssuerKey, findings: &mut Findings) {
    let (wanted, other, has_wanted, has_other) = match single.algorithm {
        Algorithm::HS256 => (
            "secret_file",
            "public_key_file",
            single.secret_file.is_some(),
            single.public_key_file.is_some(),
        ),
        Algorithm::ES256 | Algorithm::EdDSA | Algorithm::RS256 => (
            "public_key_file",
            "secret_file",
            single.public_key_file.is_some(),
            single.secret_file.is_some(),
        ),
    };
    if !has_wanted {
        findings.add(
            key,
            format!(
                "the key `{wanted}` is missing, which algorithm {:?} needs",
                single.algorithm
            ),
            format!("add `{wanted} = \"…\"`"),
        );
    }
    if has_other {
        findings.add(
            format!("{key}.{other}"),
            format!("does not belong to algorithm {:?}", single.algorithm),
            format!("remove it; `{wanted}` holds the key"),
        );
    }
}
