//! What the fuzz targets in `fuzz/` drive: each function takes bytes as a stranger would send them, runs one parser or policy of
//! the data path, and panics where an invariant or an independent reading of the same bytes disagrees.
//!
//! Compiled for tests and with the feature `fuzzing` only. The unit test replays every seed, so that the targets cannot rot.

pub use super::{
    auth::fuzzing::{carriers, claims, cookies, session},
    forward::fuzzing::{bridge, headers},
    own::fuzzing::return_to,
    relay::fuzzing::{frames, observer},
    route::fuzzing::routes_file,
};

use http::{Request, Uri, Version};

use super::http as parse;

const DOMAIN: &str = "gitspaces.localhost";

/// Lines of an input; what strangers send in one field cannot hold a line feed.
pub(super) fn lines(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.split(|byte| *byte == b'\n')
}

/// What a balancer sends first.
pub fn proxy_protocol(data: &[u8]) {
    super::proxy_protocol::fuzzing::proxy_protocol(data);
}

/// Whether upgrades become streams, how many bytes come at a time, then what an HTTP/1.1 client sends.
pub fn guard(data: &[u8]) {
    super::connection::fuzzing::guard(data);
}

/// `Host`, a line feed, a request target: whatever is accepted is canonical, and says what the strict reading says.
pub fn host(data: &[u8]) {
    let mut lines = lines(data);
    let (host, target) = (lines.next().unwrap_or_default(), lines.next());
    let mut request = Request::builder();
    if let Some(target) = target.filter(|target| !target.is_empty()) {
        let Ok(target) = Uri::try_from(target) else {
            return;
        };
        request = request.uri(target);
    }
    if data.first() == Some(&b'!') {
        request = request.version(Version::HTTP_2);
    } else {
        request = request.header("host", host);
    }
    let Ok(request) = request.body(()).map(|request| request.into_parts().0) else {
        return;
    };
    let domains = [DOMAIN.into()];
    let Ok(head) = parse::parse(&request, &domains, parse::Transport::Plain) else {
        return;
    };
    let authority = request.uri.authority().map(|it| it.as_str().as_bytes());
    let said = match request.headers.get("host") {
        Some(host) => host.as_bytes(),
        None => authority.unwrap_or_default(),
    };
    let strict = strictly(said);
    if let Some(authority) = authority {
        let usual = match request.uri.scheme_str() {
            Some("https" | "wss") => 443,
            _ => 80,
        };
        let place = |authority: &[u8]| {
            strictly(authority).map(|(host, port)| (host, port.unwrap_or(usual)))
        };
        assert_eq!(place(authority), place(said), "two authorities");
    }
    assert_eq!(
        Some((&*head.host, head.authority_port)),
        strict.as_ref().map(|(host, port)| (host.as_str(), *port)),
        "{:?}",
        String::from_utf8_lossy(said)
    );
    one_spelling(&head, &domains);
}

/// RFC 3986 §3.2.2 without its percent-encoding and sub-delimiters: a name or IPv4 address, or an IPv6 address in brackets.
fn strictly(authority: &[u8]) -> Option<(String, Option<u16>)> {
    let text = std::str::from_utf8(authority).ok()?;
    let (host, port) = match text.rfind(':') {
        Some(at) if !text[at..].contains(']') => (&text[..at], &text[at + 1..]),
        _ => (text, ""),
    };
    let port = match port {
        "" => None,
        digits if digits.starts_with('0') => return None,
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().ok()?),
        _ => return None,
    };
    let host = host.to_ascii_lowercase();
    if let Some(address) = host.strip_prefix('[') {
        let address: std::net::Ipv6Addr = address.strip_suffix(']')?.parse().ok()?;
        return Some((format!("[{address}]"), port));
    }
    let host = host.strip_suffix('.').unwrap_or(&host).to_owned();
    let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let labels = host.split('.').map(str::len).collect::<Vec<_>>();
    let fits = host.len() <= 253
        && labels.iter().all(|length| (1..=63).contains(length))
        && host.bytes().all(name);
    fits.then_some((host, port))
}

/// A gitspace's port has one host, and a canonical host stays as it is.
fn one_spelling(head: &parse::Head, domains: &[Box<str>]) {
    if let parse::Destination::Gitspace(gitspace, port) = &head.destination {
        let host = match port {
            crate::api::access::Port::App(number) => format!("{gitspace}-{number}.{DOMAIN}"),
            _ => format!("{gitspace}.{DOMAIN}"),
        };
        assert_eq!(*head.host, *host, "two hosts lead to one port");
    }
    let again = Request::builder().header("host", &*head.host).body(());
    let again = again
        .map(|request| parse::parse(&request.into_parts().0, domains, parse::Transport::Plain));
    let Ok(Ok(again)) = again else {
        panic!("the canonical host {:?} is refused", head.host);
    };
    assert_eq!(
        (&again.host, &again.destination),
        (&head.host, &head.destination)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeds(target: &str, run: fn(&[u8])) {
        let folder = format!("{}/fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
        let files: Vec<_> = std::fs::read_dir(&folder).unwrap().collect();
        assert!(files.len() >= 3, "{folder} has too few seeds");
        for file in files {
            let file = file.unwrap().path();
            println!("{}", file.display());
            run(&std::fs::read(file).unwrap());
        }
    }

    #[test]
    fn every_seed_of_the_fuzz_targets_holds() {
        seeds("guard", guard);
        seeds("host", host);
        seeds("headers", headers);
        seeds("cookies", cookies);
        seeds("proxy_protocol", proxy_protocol);
        seeds("routes_file", routes_file);
        seeds("carriers", carriers);
        seeds("claims", claims);
        seeds("session", session);
        seeds("return_to", return_to);
        seeds("frames", frames);
        seeds("observer", observer);
        seeds("bridge", bridge);
    }
}
