//! Forms of text: DNS names, URLs, upstreams, origins.

use std::net::Ipv6Addr;

type Checked = Result<(), (String, String)>;

fn wrong(problem: impl Into<String>, change: impl Into<String>) -> Checked {
    Err((problem.into(), change.into()))
}

/// A DNS name as the gateway compares it: lower case, no trailing dot, labels of at most 63 (RFC 1035 §2.3.4).
pub(super) fn dns_name(name: &str) -> Checked {
    let canonical = name.trim_end_matches('.').to_ascii_lowercase();
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > 253 || !canonical.split('.').all(label_ok) {
        return wrong(
            format!(
                "is {name:?}, which is no DNS name: labels of 1 to 63 of a-z, 0-9 and -, joined by dots, without a port"
            ),
            "write a name such as \"gitspaces.example.com\"; international names in their xn-- form",
        );
    }
    if canonical != name {
        return wrong(
            format!("is {name:?}, which is not in its canonical form"),
            format!("write {canonical:?}"),
        );
    }
    Ok(())
}

/// A DNS name, or an IPv6 address in brackets in its shortest form (RFC 5952); an IPv4 address is written like a name.
pub(super) fn host(host: &str) -> Checked {
    let literal = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let Some(address) = literal.and_then(|literal| literal.parse::<Ipv6Addr>().ok()) else {
        return dns_name(host);
    };
    let canonical = format!("[{address}]");
    if canonical != host {
        return wrong(
            format!("is {host:?}, which is not in its canonical form"),
            format!("write {canonical:?}"),
        );
    }
    Ok(())
}

/// `http://host[:port]` or `https://…`, as the base of other URLs.
pub(super) fn base_url(url: &str) -> Checked {
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    let Some(authority) = rest.map(|rest| rest.strip_suffix('/').unwrap_or(rest)) else {
        return wrong(
            format!("is {url:?}; a URL that starts with http:// or https:// is accepted"),
            "write a URL such as \"https://control.example.com\"",
        );
    };
    if authority.contains(['/', '?', '#', '@']) || split_authority(authority, false).is_err() {
        return wrong(
            format!(
                "is {url:?}; a scheme, a host and perhaps a port are accepted, nothing behind them"
            ),
            "write a URL such as \"https://control.example.com\" or \"http://127.0.0.1:8182\"",
        );
    }
    Ok(())
}

/// `http://host[:port]/path` or `https://…`, under which there are pages.
pub(super) fn page_url(url: &str) -> Checked {
    let scheme = ["http://", "https://"]
        .into_iter()
        .find(|scheme| url.starts_with(scheme));
    let rest = scheme.and_then(|scheme| url.strip_prefix(scheme));
    let authority = rest.map(|rest| rest.split('/').next().unwrap_or_default());
    let good = authority.is_some_and(|authority| {
        !authority.contains('@') && split_authority(authority, false).is_ok()
    });
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"?#\\\"<>".contains(&byte);
    if !good || !url.bytes().all(plain) {
        return wrong(
            format!(
                "is {url:?}; a URL with http:// or https://, a host and perhaps a port and a path is accepted"
            ),
            "write a URL such as \"http://127.0.0.1:8081/hub/error\"",
        );
    }
    Ok(())
}

/// `http://host:port`, `https://…`, `h2c://…` or `unix:/path`.
pub(super) fn upstream(text: &str) -> Checked {
    const ACCEPTED: &str = "\"http://host:port\", \"https://host:port\", \"h2c://host:port\" and \"unix:/path\" are accepted";
    if let Some(path) = text.strip_prefix("unix:") {
        // 108 bytes with the final zero is what a socket address holds (unix(7)).
        return match path.starts_with('/') && path.len() < 108 {
            true => Ok(()),
            false => wrong(
                format!(
                    "is {text:?}; the path of a Unix socket is absolute and at most 107 bytes long"
                ),
                "write it such as \"unix:/run/app.sock\"",
            ),
        };
    }
    let scheme = ["http://", "https://", "h2c://"]
        .into_iter()
        .find(|scheme| text.starts_with(scheme));
    let Some((scheme, authority)) =
        scheme.and_then(|scheme| Some((scheme, text.strip_prefix(scheme)?)))
    else {
        return wrong(
            format!("is {text:?}; {ACCEPTED}"),
            "write it such as \"http://127.0.0.1:8089\"",
        );
    };
    if let Some((authority, _)) = authority.split_once(['/', '?', '#']) {
        return wrong(
            format!("is {text:?}; an upstream has no path: the request's own is used"),
            format!("write \"{scheme}{authority}\""),
        );
    }
    split_authority(authority, true).map_err(|problem| {
        (
            format!("is {text:?}; {problem}; {ACCEPTED}"),
            format!("write it such as \"{scheme}127.0.0.1:8089\" or \"{scheme}[::1]:8089\""),
        )
    })
}

/// `scheme://host[:port]`, as browsers send it in Origin (RFC 6454 §7).
pub(super) fn origin(text: &str) -> Checked {
    match base_url(text) {
        Ok(()) if !text.ends_with('/') && text == text.to_ascii_lowercase() => Ok(()),
        _ => wrong(
            format!(
                "is {text:?}, which is no origin: scheme, host in lower case and perhaps a port, no slash at the end"
            ),
            "write it such as \"https://app.example.com\"",
        ),
    }
}

fn split_authority(authority: &str, port_needed: bool) -> Result<(), &'static str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or("a ] is missing")?;
            address
                .parse::<Ipv6Addr>()
                .map_err(|_| "the address in brackets is not IPv6")?;
            (
                None,
                after
                    .strip_prefix(':')
                    .or((!after.is_empty()).then_some("")),
            )
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(authority), None),
        },
    };
    if host.is_some_and(|host| dns_name(&host.to_ascii_lowercase()).is_err()) {
        return Err("the host is neither an address nor a DNS name");
    }
    match port {
        Some(port) if port_number(port).is_some() => Ok(()),
        None if !port_needed => Ok(()),
        Some(_) => Err("the port is not a number from 1 to 65535"),
        None => Err("the port is missing"),
    }
}

/// 1 to 65535, written without zeros in front.
pub(super) fn port_number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_are_addresses_names_and_sockets() {
        for good in [
            "http://127.0.0.1:80",
            "http://[::1]:8089",
            "http://app.internal:3000",
            "https://app.internal:3000",
            "h2c://[::1]:50051",
            "unix:/run/a.sock",
        ] {
            assert_eq!(upstream(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1:80",
            "ftp://a:1",
            "https://a",
            "h2c://a:1/x",
            "http://a",
            "http://a:0",
            "http://a:65536",
            "http://a:080",
            "http://a:80/",
            "http://user@a:80",
            "http://[::1]",
            "http://[::1]x:80",
            "http://[::1:80",
            "http://[127.0.0.1]:80",
            "http://a:1:2",
            "unix:a.sock",
            "unix:",
        ] {
            assert!(upstream(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn dns_names_are_canonical() {
        assert_eq!(dns_name("gitspaces.localhost"), Ok(()));
        for bad in ["", ".", "a..b", "-a.b", "a_b", "a:1", "*.a", "ä.de", "a."] {
            assert!(dns_name(bad).is_err(), "{bad}");
        }
        assert_eq!(dns_name("A.B.").unwrap_err().1, "write \"a.b\"");
    }

    #[test]
    fn base_urls_and_origins_have_no_path() {
        assert_eq!(base_url("https://a.b:8443"), Ok(()));
        assert_eq!(base_url("http://127.0.0.1:8182/"), Ok(()));
        for bad in [
            "a.b",
            "ftp://a",
            "https://",
            "https://a/b",
            "https://u@a",
            "https://a?x",
        ] {
            assert!(base_url(bad).is_err(), "{bad}");
        }
        assert_eq!(origin("https://a.b"), Ok(()));
        assert!(origin("https://a.b/").is_err() && origin("https://A.b").is_err());
    }
}
