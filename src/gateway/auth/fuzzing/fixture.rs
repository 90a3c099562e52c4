//! One authenticator for all inputs, and what it issued: inputs name each by a byte that stands in no request.

use std::{
    fs,
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::FutureExt;
use http::{Request, Uri, request::Parts};
use serde_json::{Value, json};

use super::{
    super::{Authentication, Authenticator, LastToken},
    stripping::TOKEN_COOKIE,
};
use crate::config;

/// The domain of the gitspace that everything was issued for.
pub(in crate::gateway) const DOMAIN: &str = "gitspaces.localhost";
/// Its host.
pub(super) const HOST: &str = "api-k3x9q2.gitspaces.localhost";
pub(super) const ISSUER: &str = "https://issuer.test";
/// Begins names that another issuer gives.
pub(super) const OTHER_PREFIX: &str = "other:";
pub(super) const NOW: i64 = 1_800_000_000;
/// The longest life of a session, in seconds.
pub(super) const SESSION: i64 = 12 * 3600;
const SECRET: &[u8] = b"a secret of the fuzz targets that guards nothing";

pub(in crate::gateway) static FIXTURE: LazyLock<Fixture> = LazyLock::new(Fixture::new);

/// See the module.
pub(in crate::gateway) struct Fixture {
    pub(in crate::gateway) auth: Authenticator,
    pub(in crate::gateway) now: SystemTime,
    issued: Vec<(Vec<u8>, Is)>,
}

/// What something issued is worth, at [`HOST`] and now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Is {
    /// An access token of this principal.
    Access(&'static str),
    /// A ticket, while it is not used.
    Ticket,
    /// A session.
    Session,
    /// Nothing.
    Bad,
}

impl Fixture {
    fn new() -> Self {
        let mut random = [0; 8];
        getrandom::fill(&mut random).expect("randomness");
        let name = format!("cde-gateway-fuzz-{:016x}", u64::from_ne_bytes(random));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("a folder");
        let secret = folder.join("secret");
        fs::write(&secret, SECRET).expect("a file");
        let issuer = |name: &str, prefix: &str| {
            format!(
                "[[issuer]]\nissuer = {name:?}\nprefix = {prefix:?}\n[[issuer.key]]\nid = \"1\"\nalgorithm = \"HS256\"\nsecret_file = {secret:?}\n"
            )
        };
        let tables = format!(
            "[auth]\ntoken_cookies = [{TOKEN_COOKIE:?}]\n[timeouts]\nsession = \"{SESSION}s\"\n{}{}",
            issuer(ISSUER, ""),
            issuer("https://other.test", OTHER_PREFIX)
        );
        let config: config::Gateway = toml::from_str(&tables).expect("a configuration");
        let auth = Authenticator::new(&config, &folder).expect("keys");
        // All was read, and nothing is written: no ticket is redeemed here.
        fs::remove_dir_all(&folder).expect("the folder");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW as u64);
        let mut fixture = Self {
            auth,
            now,
            issued: Vec::new(),
        };
        fixture.issue();
        fixture
    }

    fn issue(&mut self) {
        let token = |more: Value| token(&json!({ "alg": "HS256" }), &claims(more)).into_bytes();
        let (alice, bob) = (token(json!({})), token(json!({ "sub": "bob" })));
        let mut forged = token(json!({ "sub": "eve" }));
        let end = forged.len() - 40;
        forged[end] = if forged[end] == b'A' { b'B' } else { b'A' };
        let ticket = token(ticket());
        let here = self.session(&ticket, HOST);
        let elsewhere = self.session(&ticket, "api-k3x9q2-3000.gitspaces.localhost");
        self.issued = vec![
            (alice, Is::Access("alice")),
            (bob, Is::Access("bob")),
            (token(json!({ "exp": NOW - 60 })), Is::Bad),
            (forged, Is::Bad),
            (token(json!({ "iss": "https://app.test" })), Is::Bad),
            (ticket, Is::Ticket),
            (here, Is::Session),
            (elsewhere, Is::Bad),
        ];
    }

    fn session(&self, ticket: &[u8], host: &str) -> Vec<u8> {
        let ticket = String::from_utf8_lossy(ticket);
        let target = format!("/?gitspace_token={ticket}").parse();
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.uri = target.expect("a target");
        let Authentication::Ticket(ticket) = self.authenticate(&mut parts, HOST, true, 0) else {
            panic!("the ticket is none");
        };
        let cookie = self.auth.session(&ticket, host, self.now);
        let pair = cookie.as_bytes().split(|byte| *byte == b';').next();
        let pair = pair.unwrap_or_default();
        let begin = pair.iter().position(|byte| *byte == b'=').expect("a value");
        pair[begin + 1..].to_vec()
    }

    /// What the step says, on a connection of its own, `after` so many seconds.
    pub(super) fn authenticate(
        &self,
        parts: &mut Parts,
        host: &str,
        navigation: bool,
        after: u64,
    ) -> Authentication {
        let last = LastToken::default();
        let now = self.now + Duration::from_secs(after);
        let step = self.auth.authenticate(parts, host, navigation, now, &last);
        step.now_or_never().expect("nothing to wait for")
    }

    /// The text with what it names by the bytes 1, 2, … in their places.
    pub(super) fn filled(&self, text: &[u8]) -> Vec<u8> {
        let mut filled = Vec::with_capacity(text.len() + 512);
        for byte in text {
            match self.issued.get(usize::from(*byte).wrapping_sub(1)) {
                Some((issued, _)) => filled.extend_from_slice(issued),
                None => filled.push(*byte),
            }
        }
        filled
    }

    /// What a value is worth: nothing, unless it was issued to the last byte.
    pub(super) fn worth(&self, value: &[u8]) -> Is {
        let mut issued = self.issued.iter();
        issued
            .find(|(text, _)| text == value)
            .map_or(Is::Bad, |(_, is)| *is)
    }

    /// The value of something issued.
    pub(super) fn issued(&self, wanted: Is) -> &[u8] {
        let mut issued = self.issued.iter();
        issued
            .find(|(_, is)| *is == wanted)
            .map_or(&[], |(text, _)| text)
    }

    /// Whether a text has the ticket in it.
    pub(in crate::gateway) fn holds_ticket(&self, text: &str) -> bool {
        text.contains(&*String::from_utf8_lossy(self.issued(Is::Ticket)))
    }

    /// A target with a ticket in its query.
    pub(in crate::gateway) fn with_ticket(&self, target: &str, parameter: &str) -> Option<Uri> {
        let separator = if target.contains('?') { '&' } else { '?' };
        let ticket = String::from_utf8_lossy(self.issued(Is::Ticket));
        format!("{target}{separator}{parameter}={ticket}")
            .parse()
            .ok()
    }
}

/// Claims that are good, with these on top.
fn claims(more: Value) -> Value {
    let mut claims = json!({ "iss": ISSUER, "sub": "alice", "aud": "cde-gateway", "iat": NOW, "exp": NOW + 3600 });
    if let Value::Object(more) = more {
        for (name, value) in more {
            claims[name] = value;
        }
    }
    claims
}

fn ticket() -> Value {
    json!({ "use": "ticket", "jti": "1", "exp": NOW + 60, "gitspace": "api-k3x9q2", "ports": ["ide"] })
}

fn token(header: &Value, claims: &Value) -> String {
    signed(header.to_string().as_bytes(), claims.to_string().as_bytes())
}

/// A token of exactly these bytes, with a good signature.
pub(super) fn signed(header: &[u8], claims: &[u8]) -> String {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET);
    let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let message = format!("{}.{}", encoded(header), encoded(claims));
    let signature = aws_lc_rs::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", encoded(signature.as_ref()))
}
