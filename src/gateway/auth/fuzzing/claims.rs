//! The fuzz target of what a token says: header and claims under a signature that is good, against a second reading of the same JSON.

use serde_json::{Map, Value};

use super::{
    super::token::{self, Verified},
    fixture::{FIXTURE, ISSUER, NOW, OTHER_PREFIX, signed},
};

const LEEWAY: i64 = 30;
const LAST: i64 = 253_402_300_799;

/// Each half is looked at beside a good other one too, so that what is wrong with one hides nothing of the other.
const HEADER: &[u8] = br#"{"alg":"HS256"}"#;
const CLAIMS: &[u8] =
    br#"{"iss":"https://issuer.test","sub":"alice","aud":"cde-gateway","exp":1800003600}"#;

/// A header up to the first line feed, then claims.
pub fn claims(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n');
    let (header, claims) = data.split_at(at.unwrap_or(data.len()));
    let claims = claims.get(1..).unwrap_or_default();
    for (header, claims) in [(header, claims), (header, CLAIMS), (HEADER, claims)] {
        agree(header, claims);
    }
}

fn agree(header: &[u8], claims: &[u8]) {
    let token = signed(header, claims);
    let keyring = FIXTURE.auth.keyring.load();
    let found = token::verify(token.as_bytes(), &keyring.issuers, NOW);
    let expected = read(header, claims);
    match (found, expected) {
        (Ok(found), Some(expected)) => says(&found, &expected),
        (Err(_), None) => {}
        // Its session would not fit into a cookie, which is for the session to know.
        (Err(_), Some(expected)) if is_ticket(&expected) && claims.len() > 1024 => {}
        (found, expected) => panic!("found {found:?}, expected {expected:?}"),
    }
}

/// How many members an object has as it is written: the commas that separate them, and one.
pub(super) fn members(json: &[u8]) -> usize {
    let (mut depth, mut commas, mut content) = (0, 0, false);
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {
                content = true;
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'\\' => drop(bytes.next()),
                        b'"' => break,
                        _ => {}
                    }
                }
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b',' if depth == 1 => commas += 1,
            _ => {}
        }
    }
    if content { commas + 1 } else { 0 }
}

fn object(json: &[u8]) -> Option<Map<String, Value>> {
    let object: Map<String, Value> = serde_json::from_slice(json).ok()?;
    (object.len() == members(json)).then_some(object)
}

fn is_ticket(claims: &Map<String, Value>) -> bool {
    claims.get("use").is_some_and(|usage| usage == "ticket")
}

/// The claims of a token that holds.
fn read(header: &[u8], claims: &[u8]) -> Option<Map<String, Value>> {
    let (header, claims) = (object(header)?, object(claims)?);
    header_holds(&header).then_some(())?;
    claims_hold(&claims)?;
    if is_ticket(&claims) {
        ticket_holds(&claims)?;
    }
    Some(claims)
}

fn header_holds(header: &Map<String, Value>) -> bool {
    let purpose = match header.get("typ") {
        None => true,
        Some(Value::String(purpose)) => {
            let known = ["JWT", "at+jwt", "application/jwt", "application/at+jwt"];
            known
                .iter()
                .any(|known| purpose.eq_ignore_ascii_case(known))
        }
        Some(_) => false,
    };
    purpose
        && !header.contains_key("crit")
        && header.get("alg").is_some_and(|alg| alg == "HS256")
        && header.get("kid").is_none_or(|kid| kid == "1")
}

fn claims_hold(claims: &Map<String, Value>) -> Option<()> {
    let has = |name: &str| claims.contains_key(name);
    let text_or_none = |name: &str| claims.get(name).is_none_or(Value::is_string);
    let subject = claims.get("sub")?.as_str()?;
    let prefix = match claims.get("iss")?.as_str()? {
        ISSUER => "",
        "https://other.test" => OTHER_PREFIX,
        _ => return None,
    };
    let holds = (1..=255).contains(&subject.chars().count())
        && subject.chars().all(seen)
        && (!prefix.is_empty() || !subject.starts_with(OTHER_PREFIX))
        && ["jti", "sid", "org"].into_iter().all(text_or_none)
        && listed(claims.get("aud")?)?.contains(&"cde-gateway")
        && (!has("groups") || claims["groups"].is_array() && listed(&claims["groups"]).is_some())
        && date(claims.get("exp")?)? + LEEWAY > NOW
        && (!has("nbf") || date(&claims["nbf"])? <= NOW + LEEWAY)
        && (!has("iat") || date(&claims["iat"]).is_some())
        && (!has("gitspace") || listed(&claims["gitspace"])?.into_iter().all(label))
        && (!has("ports") || claims["ports"].as_array()?.iter().all(port))
        && (!has("use") || matches!(claims["use"].as_str()?, "access" | "ticket"));
    holds.then_some(())
}

fn ticket_holds(claims: &Map<String, Value>) -> Option<()> {
    let (issued, jti) = (date(claims.get("iat")?)?, claims.get("jti")?.as_str()?);
    let holds = (1..=256).contains(&jti.len())
        && listed(claims.get("gitspace")?)?.len() == 1
        && claims.get("ports")?.as_array()?.len() == 1
        && date(claims.get("exp")?)? - issued <= 300
        && issued <= NOW + LEEWAY;
    holds.then_some(())
}

/// A text, or a list of texts.
fn listed(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(list) => list.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// Whole seconds of a number that is neither before 1970 nor after 9999.
fn date(value: &Value) -> Option<i64> {
    let number = value.as_number()?;
    if let Some(whole) = number.as_i64() {
        return (0..=LAST).contains(&whole).then_some(whole);
    }
    let seconds = number
        .as_f64()
        .filter(|it| it.is_sign_positive() || *it == 0.0)?;
    (seconds <= LAST as f64).then_some(seconds as i64)
}

fn seen(c: char) -> bool {
    let marks = ['\u{61c}', '\u{feff}'];
    let ranges = [0x200b..=0x200f, 0x2028..=0x202e, 0x2060..=0x206f];
    !c.is_control()
        && !marks.contains(&c)
        && !ranges.iter().any(|range| range.contains(&u32::from(c)))
}

fn label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn port(value: &Value) -> bool {
    matches!(value.as_str(), Some("ide" | "ssh"))
        || value
            .as_u64()
            .is_some_and(|port| (1..=65535).contains(&port))
}

/// What was understood is what is written.
fn says(found: &Verified, claims: &Map<String, Value>) {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let count = |name: &str| {
        claims
            .get(name)
            .map(|list| listed(list).map_or(0, |list| list.len()))
    };
    let principal = &found.principal;
    let prefix = if text("iss") == Some(ISSUER) {
        ""
    } else {
        OTHER_PREFIX
    };
    let name = format!("{prefix}{}", text("sub").unwrap_or_default());
    assert_eq!(*principal.name, *name);
    assert_eq!(Some(&*principal.issuer), text("iss"));
    assert_eq!(principal.org.as_deref(), text("org"));
    assert_eq!(principal.sid.as_deref(), text("sid"));
    assert_eq!(principal.jti.as_deref(), text("jti"));
    assert_eq!(principal.issued_at, claims.get("iat").and_then(date));
    assert_eq!(Some(found.until - LEEWAY), claims.get("exp").and_then(date));
    assert_eq!(Some(principal.groups.len()), count("groups").or(Some(0)));
    assert_eq!(
        principal.gitspaces.as_ref().map(|list| list.len()),
        count("gitspace")
    );
    let ports = claims.get("ports").and_then(Value::as_array).map(Vec::len);
    assert_eq!(principal.ports.as_ref().map(|list| list.len()), ports);
    assert_eq!(found.ticket.is_some(), is_ticket(claims));
    assert!(principal.session_end.is_none() && !principal.grants);
}
