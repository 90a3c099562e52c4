//! What is believed of whom, over every form of the lists.

use proptest::prelude::*;

use super::{lists::Element, *};

const PEER: &str = "10.0.0.1";

/// What a peer in 10.0.0.0/8 or 2001:db8:f::/48, both trusted, says with these fields over plain HTTP.
fn told(fields: &[(&'static str, &'static str)]) -> Client {
    let trusted = ["10.0.0.0/8", "2001:db8:f::/48"].map(|network| network.parse().unwrap());
    let headers: HeaderMap = fields
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                http::HeaderValue::from_static(value),
            )
        })
        .collect();
    let own = Client {
        ip: PEER.parse().unwrap(),
        secure: false,
        request_id: None,
        port: Port::Own(8080),
    };
    own.told(&headers, &Networks::new(&trusted))
}

fn ip(fields: &[(&'static str, &'static str)]) -> String {
    told(fields).ip.to_string()
}

#[test]
fn the_client_is_the_rightmost_hop_that_is_not_trusted() {
    for (list, expected) in [
        ("192.0.2.1", "192.0.2.1"),
        ("203.0.113.9, 192.0.2.1", "192.0.2.1"),
        ("203.0.113.9, 192.0.2.1, 10.1.1.1,10.2.2.2", "192.0.2.1"),
        ("10.3.3.3, 10.2.2.2", "10.3.3.3"),
        ("192.0.2.1:5555", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:5555, 2001:db8:f::9", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("192.0.2.1, ::ffff:10.0.0.7", "192.0.2.1"),
        ("192.0.2.1,, \t,10.0.0.7,", "192.0.2.1"),
    ] {
        assert_eq!(ip(&[("x-forwarded-for", list)]), expected, "{list}");
    }
    let lines = [
        ("x-forwarded-for", "203.0.113.9, 192.0.2.1"),
        ("x-forwarded-for", "10.0.0.9"),
    ];
    assert_eq!(ip(&lines), "192.0.2.1", "lines are one list");
}

#[test]
fn what_cannot_be_read_ends_the_list_at_the_nearest_known_hop() {
    for (list, expected) in [
        ("", PEER),
        ("unknown", PEER),
        ("192.0.2.1, unknown", PEER),
        ("192.0.2.1, 10.9.9.9 x", PEER),
        ("192.0.2.1, _hidden, 10.0.0.7", "10.0.0.7"),
        ("192.0.2.1, 192.0.2.01", PEER),
        ("192.0.2.1, 256.0.0.1", PEER),
        ("192.0.2.1:", PEER),
        ("192.0.2.1:x", PEER),
        ("192.0.2.1:123456", PEER),
        ("[192.0.2.1]", PEER),
        ("[2001:db8::1", PEER),
        ("[2001:db8::1]x", PEER),
        ("fe80::1%eth0", PEER),
        ("\"192.0.2.1\"", PEER),
        ("192.0.2.1;10.0.0.1", PEER),
        ("example.com", PEER),
    ] {
        assert_eq!(ip(&[("x-forwarded-for", list)]), expected, "{list}");
    }
    assert_eq!(ip(&[]), PEER);
}

#[test]
fn forwarded_says_the_same_in_its_own_form() {
    for (list, expected) in [
        ("for=192.0.2.1", "192.0.2.1"),
        ("For=\"[2001:db8::1]:5555\";proto=https", "2001:db8::1"),
        ("for=192.0.2.1:80", "192.0.2.1"),
        (
            "for=203.0.113.9, for=192.0.2.1;by=_x, for=10.2.2.2",
            "192.0.2.1",
        ),
        (
            "by=\"a, b\";for=192.0.2.1 , for=\"10.0.0.2\" ,,",
            "192.0.2.1",
        ),
        ("for=192.0.2.1; proto=http ;host=\"a:1\";", "192.0.2.1"),
        ("for=192.0.2.1, for=unknown", PEER),
        ("for=192.0.2.1, proto=https", PEER),
        ("for=192.0.2.1, for=_gazonk, for=10.0.0.3", "10.0.0.3"),
        ("for=192.0.2.1;for=192.0.2.1", PEER),
        ("for=\"192.0.2.1", PEER),
        ("for=\"192.0.2.\\1\"", PEER),
        ("for = 192.0.2.1", PEER),
        ("for=", PEER),
        ("=192.0.2.1", PEER),
        ("192.0.2.1", PEER),
        ("for=192.0.2.1 for=192.0.2.2", PEER),
    ] {
        assert_eq!(ip(&[("forwarded", list)]), expected, "{list}");
    }
    // What a client leaves open cannot swallow what the proxy adds, on the same line or on its own.
    for forged in ["for=\"", "for=1.1.1.1;x=\"", "x=\"\\", "for=1.1.1.1, \""] {
        let added = format!("{forged}, for=192.0.2.1").leak();
        assert_eq!(ip(&[("forwarded", added)]), PEER, "{added}");
        let quoted = format!("{forged}, for=\"[2001:db8::1]\"").leak();
        assert_eq!(ip(&[("forwarded", quoted)]), PEER, "{quoted}");
        let lines = [("forwarded", forged), ("forwarded", "for=192.0.2.1")];
        assert_eq!(ip(&lines), "192.0.2.1", "{forged}");
    }
    let many = vec!["for=10.0.0.2"; 101].join(",").leak();
    assert_eq!(ip(&[("forwarded", many)]), PEER);
}

#[test]
fn elements_have_parts() {
    assert_eq!(
        elements("a=b;FOR=\"x, y\";Proto=z, c=d"),
        Some(vec![
            Element {
                node: Some("x, y"),
                proto: Some("z")
            },
            Element::default()
        ])
    );
}

#[test]
fn two_lists_that_disagree_count_for_nothing() {
    let for_1 = ("x-forwarded-for", "192.0.2.1");
    assert_eq!(ip(&[for_1, ("forwarded", "for=192.0.2.1")]), "192.0.2.1");
    assert_eq!(ip(&[for_1, ("forwarded", "for=192.0.2.2")]), PEER);
    assert_eq!(ip(&[for_1, ("forwarded", "for=unknown")]), PEER);
    let https = ("x-forwarded-proto", "https");
    assert!(told(&[https, ("forwarded", "for=192.0.2.1;proto=https")]).secure);
    assert!(!told(&[https, ("forwarded", "for=192.0.2.1;proto=http")]).secure);
    assert!(!told(&[https, ("forwarded", "for=192.0.2.1;proto=x")]).secure);
    assert!(told(&[https, ("forwarded", "for=192.0.2.1")]).secure);
}

#[test]
fn scheme_and_port_belong_to_the_hop_that_saw_the_client() {
    let hops = ("x-forwarded-for", "192.0.2.1, 10.0.0.2");
    let secure = |proto| told(&[hops, ("x-forwarded-proto", proto)]).secure;
    assert!(secure("https, http") && secure("https") && secure("HTTPS") && secure("wss"));
    assert!(!secure("http, https") && !secure("ftp") && !secure("https x") && !secure(""));
    assert!(
        !secure("https, http, http"),
        "a client cannot put its own in front"
    );
    assert!(
        told(&[(
            "forwarded",
            "for=192.0.2.1;proto=https, for=10.0.0.2;proto=http"
        )])
        .secure
    );
    assert!(
        !told(&[(
            "forwarded",
            "for=1.1.1.1;proto=https, for=192.0.2.1;proto=http"
        )])
        .secure
    );
    assert!(!told(&[("forwarded", "for=1.1.1.1;proto=https, for=192.0.2.1")]).secure);

    let port = |fields: &[(&'static str, &'static str)]| told(fields).port;
    let https = ("x-forwarded-proto", "https");
    assert_eq!(port(&[https]), Port::Usual(443));
    assert_eq!(port(&[("x-forwarded-proto", "http")]), Port::Usual(80));
    assert_eq!(
        port(&[https, ("x-forwarded-port", "8443")]),
        Port::Told(8443)
    );
    assert_eq!(
        port(&[hops, ("x-forwarded-port", "8443, 80")]),
        Port::Told(8443)
    );
    for bad in ["0", "65536", "+1", "x", ""] {
        let port = told(&[("x-forwarded-port", "x"), ("x-forwarded-port", bad)]).port;
        assert_eq!(port, Port::Own(8080), "{bad}");
    }
}

#[test]
fn an_identifier_is_kept_if_it_is_one_plain_word() {
    let id = |value| told(&[("x-request-id", value)]).request_id;
    for good in ["a", "7f1c-42", "Root=1-67891233-abcdef;Parent=x/y+z=="] {
        assert_eq!(id(good).as_deref(), Some(good));
    }
    let longest: &'static str = "x".repeat(128).leak();
    let longer: &'static str = "x".repeat(129).leak();
    assert_eq!(id(longest).as_deref(), Some(longest));
    for bad in ["", "a b", "<script>", "a\"b", "a&b", "a\\b", "a\tb", longer] {
        assert_eq!(id(bad), None, "{bad}");
    }
    let two = told(&[("x-request-id", "a"), ("x-request-id", "a")]);
    assert_eq!(two.request_id, None);
}

proptest! {
    #[test]
    fn whatever_a_line_holds_its_parts_are_parts_of_it(line in "([a-z=\";, .:\\[\\]\\\\]|for=|proto=|192\\.0\\.2\\.1){0,40}") {
        for element in elements(&line).unwrap_or_default() {
            for part in [element.node, element.proto].into_iter().flatten() {
                prop_assert!(line.contains(part));
            }
        }
        let _ = address(&line);
    }

    #[test]
    fn nothing_left_of_the_nearest_untrusted_hop_counts(forged in "([ -~\t]{0,40},)?((for=)?203\\.0\\.113\\.9|[ -~\t]{0,20})", quoted: bool) {
        let list: &'static str = format!("{forged}, 192.0.2.1, 10.0.0.2").leak();
        prop_assert_eq!(ip(&[("x-forwarded-for", list)]), "192.0.2.1");
        // On one line a quote that is left open spoils all of it; never is anything but the nearest known hop the client.
        let hop = if quoted { "for=\"[2001:db8::1]\"" } else { "for=192.0.2.1" };
        let line: &'static str = format!("{forged}, {hop}").leak();
        let expected = if quoted { "2001:db8::1" } else { "192.0.2.1" };
        let found = ip(&[("forwarded", line)]);
        prop_assert!(found == expected || found == PEER, "{} {}", line, found);
    }

    #[test]
    fn every_address_is_read_in_every_form(ip: IpAddr, port: u16) {
        let canonical = Some(ip.to_canonical());
        prop_assert_eq!(address(&ip.to_string()), canonical);
        prop_assert_eq!(address(&std::net::SocketAddr::new(ip, port).to_string()), canonical);
    }
}
