//! Tokens in two carriers at once: which one counts does not depend on which of them an attacker could add.

use cde_gateway::gateway::auth::{Authentication, LastToken, TokenError};
use http::request::Parts;
use serde_json::json;

use crate::auth::support::{AtOnce, Fixture, HOST, Key, request, result};

/// The carriers in the order in which they count.
const CARRIERS: [&str; 6] = ["session", "header", "bearer", "ours", "foreign", "cookie"];

/// A request with something in each of these carriers.
fn carrying(found: &[(&str, &str)]) -> Parts {
    let (mut query, mut cookies, mut headers) =
        (vec!["x=1".to_owned()], vec!["a=1".to_owned()], Vec::new());
    for (carrier, value) in found {
        match *carrier {
            "session" => cookies.push(format!("__Host-gitspace={value}")),
            "header" => headers.push(("x-gitspace-token", (*value).to_owned())),
            "bearer" => headers.push(("authorization", format!("Bearer {value}"))),
            "ours" => query.push(format!("gitspace_token={value}")),
            "foreign" => query.push(format!("token={value}")),
            _ => cookies.push(format!("theirs={value}")),
        }
    }
    headers.push(("cookie", cookies.join("; ")));
    let headers: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (*name, &**value))
        .collect();
    request(&format!("/?{}", query.join("&")), &headers)
}

struct Two {
    fixture: Fixture,
    forger: Key,
}

impl Two {
    fn new() -> Self {
        Self {
            fixture: Fixture::with("[auth]\ntoken_cookies = [\"theirs\"]\n"),
            forger: Key::es256(),
        }
    }

    /// What is good for this user in a carrier.
    fn good(&self, carrier: &str, user: &str) -> String {
        match carrier {
            "session" => self.session(user),
            _ => self.fixture.token(json!({ "sub": user })),
        }
    }

    /// What looks like it.
    fn bad(&self, carrier: &str) -> String {
        let claims = self.fixture.claims(json!({ "sub": "mallory" }));
        match carrier {
            "session" => self
                .session("mallory")
                .replace("=1.", "=1.x")
                .replacen('e', "f", 1),
            _ => self.forger.token(&claims),
        }
    }

    fn session(&self, user: &str) -> String {
        let exp = crate::auth::support::seconds(self.fixture.now) + 60;
        let ticket = self.fixture.token(json!({ "sub": user, "use": "ticket", "jti": user, "exp": exp, "gitspace": "api-k3x9q2", "ports": ["ide"] }));
        let mut navigation = request(&format!("/?gitspace_token={ticket}"), &[]);
        let found = self.fixture.auth.authenticate(
            &mut navigation,
            HOST,
            true,
            self.fixture.now,
            &self.fixture.last,
        );
        let Authentication::Ticket(ticket) = found.at_once() else {
            panic!("no ticket")
        };
        let cookie = self.fixture.auth.session(&ticket, HOST, self.fixture.now);
        let pair = cookie
            .to_str()
            .unwrap()
            .split(';')
            .next()
            .unwrap()
            .to_owned();
        pair.split_once('=').unwrap().1.into()
    }

    /// Whose name counts; nothing of ours is left either way.
    fn who(&self, found: &[(&str, &str)]) -> Result<String, TokenError> {
        let mut request = carrying(found);
        let authentication = self
            .fixture
            .auth
            .authenticate(
                &mut request,
                HOST,
                false,
                self.fixture.now,
                &LastToken::default(),
            )
            .at_once();
        assert_eq!(request.uri, "/?x=1", "{found:?}");
        assert_eq!(request.headers.len(), 1, "{:?}", request.headers);
        assert_eq!(request.headers["cookie"], "a=1");
        result(authentication).map(|principal| principal.name.to_string())
    }
}

#[test]
fn of_two_carriers_the_first_valid_one_counts_in_every_pair() {
    let two = Two::new();
    for (index, first) in CARRIERS.iter().enumerate() {
        for second in &CARRIERS[index + 1..] {
            let (alice, bob) = (two.good(first, "alice"), two.good(second, "bob"));
            assert_eq!(
                two.who(&[(first, &alice), (second, &bob)]).unwrap(),
                "alice",
                "{first} {second}"
            );
            // The order on the wire is nobody's business.
            assert_eq!(
                two.who(&[(second, &bob), (first, &alice)]).unwrap(),
                "alice",
                "{second} {first}"
            );
            let (bad_first, bad_second) = (two.bad(first), two.bad(second));
            assert_eq!(
                two.who(&[(first, &bad_first), (second, &bob)]).unwrap(),
                "bob",
                "{first} {second}"
            );
            assert_eq!(
                two.who(&[(first, &alice), (second, &bad_second)]).unwrap(),
                "alice",
                "{first} {second}"
            );
            let refused = two
                .who(&[(first, &bad_first), (second, &bad_second)])
                .unwrap_err();
            let expected = two.who(&[(first, &bad_first)]).unwrap_err();
            assert_eq!(refused, expected, "{first} {second}");
        }
    }
}

#[test]
fn a_session_counts_in_its_cookie_alone_and_a_token_nowhere_as_one() {
    let two = Two::new();
    let session = two.session("alice");
    assert_eq!(two.who(&[("session", &session)]).unwrap(), "alice");
    for carrier in ["header", "ours"] {
        assert!(two.who(&[(carrier, &session)]).is_err(), "{carrier}");
    }
    // Under names that are not ours it is the app's.
    for carrier in ["bearer", "foreign", "cookie"] {
        let mut request = carrying(&[(carrier, &session)]);
        let before = request.clone();
        let found = two
            .fixture
            .auth
            .authenticate(
                &mut request,
                HOST,
                false,
                two.fixture.now,
                &two.fixture.last,
            )
            .at_once();
        assert!(
            matches!(found, Authentication::Anonymous),
            "{carrier}: {found:?}"
        );
        assert_eq!((request.uri, request.headers), (before.uri, before.headers));
    }
    let token = two.fixture.token(json!({}));
    assert!(two.who(&[("session", &token)]).is_err());
}

#[test]
fn a_megabyte_in_any_carrier_is_refused_unread() {
    let two = Two::new();
    let megabyte = "x".repeat(1 << 20);
    let claims = two.fixture.claims(json!({ "x": megabyte }));
    let token = two.fixture.key.token(&claims);
    let nested = two.fixture.key.sign(
        r#"{"alg":"ES256"}"#,
        &format!("{}{}", "[".repeat(1 << 19), "]".repeat(1 << 19)),
    );
    let begun = std::time::Instant::now();
    // Not the query: a target is shorter.
    for carrier in ["session", "header", "bearer", "cookie"] {
        for text in [
            &token,
            &megabyte,
            &nested,
            &format!("{megabyte}.{megabyte}.{megabyte}"),
            &".".repeat(1 << 20),
        ] {
            let mut request = carrying(&[(carrier, text)]);
            let found = two
                .fixture
                .auth
                .authenticate(
                    &mut request,
                    HOST,
                    false,
                    two.fixture.now,
                    &LastToken::default(),
                )
                .at_once();
            let refused = matches!(
                found,
                Authentication::Refused(_) | Authentication::Anonymous
            );
            assert!(refused, "{carrier}: {found:?}");
        }
    }
    // Twenty of them; a deadline, and no measure.
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}
