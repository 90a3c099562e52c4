//! What the claims of a token say (RFC 7519 §4.1, and ours), and whether they hold.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{
    error::{TokenError, shortened},
    keys::{Issuer, Issuers},
    principal::Principal,
    session,
    token::{TicketClaims, Verified, text},
};
use crate::api::{
    GitspaceId,
    access::{Port, Use},
};

/// By how much two clocks may differ, in seconds.
pub(crate) const LEEWAY: i64 = 30;
/// The longest life of a ticket: it stands in a URL.
const TICKET_MAX: i64 = 60;
/// The longest `jti` of a ticket: it is sent and kept.
const JTI_MAX: usize = 256;

/// The claims of a token, of the right types.
#[derive(Debug)]
pub(super) struct Claims {
    subject: String,
    audience: Vec<String>,
    expires: i64,
    not_before: Option<i64>,
    issued_at: Option<i64>,
    jti: Option<String>,
    sid: Option<String>,
    org: Option<String>,
    groups: Vec<String>,
    gitspaces: Option<Vec<GitspaceId>>,
    ports: Option<Vec<Port>>,
    usage: Use,
}

impl Claims {
    /// Reads them; a claim of the wrong type refuses the token.
    pub(super) fn read(claims: &Map<String, Value>, issuer: &Issuer) -> Result<Self, TokenError> {
        let owned = |name| text(claims, name).map(|text| text.map(String::from));
        Ok(Self {
            subject: subject(claims)?,
            audience: texts(claims, "aud", true)?.unwrap_or_default(),
            expires: date(claims, "exp")?.ok_or(TokenError::Missing("exp"))?,
            not_before: date(claims, "nbf")?,
            issued_at: date(claims, "iat")?,
            jti: owned("jti")?,
            sid: owned("sid")?,
            org: owned("org")?,
            groups: texts(claims, "groups", false)?.unwrap_or_default(),
            gitspaces: gitspaces(claims, &issuer.gitspace_claim)?,
            ports: ports(claims)?,
            usage: usage(claims)?,
        })
    }

    /// Checks them, and makes of them who is asking.
    pub(super) fn check(
        self,
        issuer: &Issuer,
        issuers: &Issuers,
        now: i64,
    ) -> Result<Verified, TokenError> {
        self.check_audience(issuer)?;
        let until = self.expires.saturating_add(LEEWAY);
        if now >= until {
            return Err(TokenError::Expired {
                since: now.saturating_sub(self.expires),
            });
        }
        if let Some(not_before) = self.not_before
            && now.saturating_add(LEEWAY) < not_before
        {
            return Err(TokenError::NotYet {
                until: not_before.saturating_sub(now),
            });
        }
        let name = issuers.name(issuer, &self.subject)?;
        let ticket = match self.usage {
            Use::Access => None,
            Use::Ticket => Some(self.ticket(now)?),
        };
        let principal = self.principal(issuer, name);
        if let Some(ticket) = &ticket {
            session::check_size(&principal, &ticket.subject)?;
        }
        Ok(Verified {
            principal,
            until,
            ticket,
        })
    }

    fn check_audience(&self, issuer: &Issuer) -> Result<(), TokenError> {
        if issuer.audience.is_empty()
            || self
                .audience
                .iter()
                .any(|audience| **audience == *issuer.audience)
        {
            return Ok(());
        }
        if self.audience.is_empty() {
            return Err(TokenError::Missing("aud"));
        }
        let found = shortened(&format!("{:?}", self.audience));
        Err(TokenError::Audience {
            found,
            expected: issuer.audience.to_string(),
        })
    }

    /// What a ticket must be beside a good token: for one port of one gitspace, short, and recognisable.
    fn ticket(&self, now: i64) -> Result<TicketClaims, TokenError> {
        let jti = self
            .jti
            .as_deref()
            .filter(|jti| !jti.is_empty())
            .ok_or(TokenError::Missing("jti"))?;
        let issued_at = self.issued_at.ok_or(TokenError::Missing("iat"))?;
        let one = |list: Option<usize>| list == Some(1);
        let problem = if jti.len() > JTI_MAX {
            "has a `jti` of at most 256 bytes"
        } else if !one(self.gitspaces.as_ref().map(Vec::len)) {
            "is for exactly one gitspace"
        } else if !one(self.ports.as_ref().map(Vec::len)) {
            "is for exactly one port (`ports`)"
        } else if self.expires.saturating_sub(issued_at) > TICKET_MAX {
            "holds for at most a minute (`exp` - `iat`)"
        } else if issued_at > now.saturating_add(LEEWAY) {
            "cannot come from the future (`iat`); compare the clocks"
        } else {
            return Ok(TicketClaims {
                jti: jti.into(),
                subject: self.subject.clone(),
                expires: self.expires,
            });
        };
        Err(TokenError::Ticket(problem))
    }

    fn principal(self, issuer: &Issuer, name: Arc<str>) -> Principal {
        Principal {
            name,
            issuer: Arc::clone(&issuer.name),
            org: self.org.map(|org| prefixed(issuer, org)),
            groups: self
                .groups
                .into_iter()
                .map(|group| prefixed(issuer, group))
                .collect(),
            gitspaces: self.gitspaces.map(Into::into),
            ports: self.ports.map(Into::into),
            grants: issuer.grants,
            share: None,
            sid: self.sid.map(Into::into),
            jti: self.jti.map(Into::into),
            issued_at: self.issued_at,
            session_end: None,
        }
    }
}

/// Names of organizations and groups, as those of users: two issuers' never meet.
fn prefixed(issuer: &Issuer, name: String) -> Arc<str> {
    match &*issuer.prefix {
        "" => name.into(),
        prefix => format!("{prefix}{name}").into(),
    }
}

fn wrong(claim: &str, expected: &'static str) -> TokenError {
    TokenError::Type {
        claim: claim.into(),
        expected,
    }
}

fn subject(claims: &Map<String, Value>) -> Result<String, TokenError> {
    let subject = text(claims, "sub")?.ok_or(TokenError::Missing("sub"))?;
    // It becomes a header's value and a field of log lines. 255 is OpenID Connect Core §2's limit.
    if !(1..=255).contains(&subject.chars().count()) || subject.chars().any(unseen) {
        return Err(wrong(
            "sub",
            "a text of 1 to 255 characters, none of which controls how others are shown",
        ));
    }
    Ok(subject.into())
}

/// Characters that are not seen themselves: control characters, line and paragraph separators, marks of direction. In a log line
/// they would make a name look like another one, or like two lines.
fn unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// A list of texts; where `single` is true, one text stands for a list of one.
fn texts(
    claims: &Map<String, Value>,
    name: &str,
    single: bool,
) -> Result<Option<Vec<String>>, TokenError> {
    let text = |value: &Value| value.as_str().map(String::from);
    let list = match claims.get(name) {
        None => return Ok(None),
        Some(Value::String(one)) if single => Some(vec![one.clone()]),
        Some(Value::Array(list)) => list.iter().map(text).collect(),
        Some(_) => None,
    };
    let expected = if single {
        "a text or a list of texts"
    } else {
        "a list of texts"
    };
    list.map(Some).ok_or_else(|| wrong(name, expected))
}

/// Seconds since 1970; a fraction is cut off (RFC 7519 §2, NumericDate).
fn date(claims: &Map<String, Value>, name: &str) -> Result<Option<i64>, TokenError> {
    // Beyond the year 9999 nothing is meant, and sums stay far from the end of the type.
    const MAX: f64 = 253_402_300_799.0;
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    match value.as_f64() {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "within the range that was just checked"
        )]
        Some(seconds) if (0.0..=MAX).contains(&seconds) => Ok(Some(seconds as i64)),
        _ => Err(wrong(name, "a number of seconds since 1970")),
    }
}

fn gitspaces(
    claims: &Map<String, Value>,
    name: &str,
) -> Result<Option<Vec<GitspaceId>>, TokenError> {
    let problem = || wrong(name, "a gitspace's identifier or a list of them");
    let Some(list) = texts(claims, name, true).map_err(|_| problem())? else {
        return Ok(None);
    };
    list.iter()
        .map(|text| text.parse().map_err(|_| problem()))
        .collect::<Result<_, _>>()
        .map(Some)
}

fn ports(claims: &Map<String, Value>) -> Result<Option<Vec<Port>>, TokenError> {
    let Some(value) = claims.get("ports") else {
        return Ok(None);
    };
    serde_json::from_value(value.clone())
        .map(Some)
        .map_err(|_| wrong("ports", "a list of \"ide\", \"ssh\" and port numbers"))
}

fn usage(claims: &Map<String, Value>) -> Result<Use, TokenError> {
    match text(claims, "use")? {
        None | Some("access") => Ok(Use::Access),
        Some("ticket") => Ok(Use::Ticket),
        Some(_) => Err(wrong("use", "\"access\" or \"ticket\"")),
    }
}
