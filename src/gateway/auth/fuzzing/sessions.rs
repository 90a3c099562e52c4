//! The fuzz target of the session's cookie: only what was sealed opens, to the last byte, at its host, and in its time.

use http::{HeaderValue, Request, header::COOKIE};

use super::{
    super::{Authentication, SESSION_COOKIE},
    fixture::{FIXTURE, HOST, Is, SESSION},
};
use crate::gateway::fuzzing::lines;

/// The byte that stands for the session with the changes; 7 stands for it as it was sealed, 8 for that of another host.
const CHANGED: u8 = 14;

/// The host, how many seconds later, changes (two bytes where, one byte what), then a `Cookie` field a line.
pub fn session(data: &[u8]) {
    let mut lines = lines(data);
    let mut line = || lines.next().unwrap_or_default();
    let (host, after, changes) = (line(), line(), line());
    let host = String::from_utf8_lossy(if host.is_empty() {
        HOST.as_bytes()
    } else {
        host
    });
    let after = std::str::from_utf8(after)
        .ok()
        .and_then(|text| text.parse::<u32>().ok());
    let after = u64::from(after.unwrap_or_default());
    let mut changed = FIXTURE.issued(Is::Session).to_vec();
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % changed.len();
        changed[at] = change[2];
    }
    let mut fields = Vec::new();
    for line in lines.take(16) {
        let mut field = Vec::new();
        // Nothing but sessions: a token in the cookie of another program is somebody too.
        let line: Vec<u8> = line.iter().copied().filter(|byte| *byte > 6).collect();
        for byte in FIXTURE.filled(&line) {
            match byte {
                CHANGED => field.extend_from_slice(&changed),
                byte => field.push(byte),
            }
        }
        fields.extend(HeaderValue::from_bytes(&field));
    }
    let opens = |after: u64| {
        let (mut parts, ()) = Request::new(()).into_parts();
        for field in &fields {
            parts.headers.append(COOKIE, field.clone());
        }
        match FIXTURE.authenticate(&mut parts, &host, false, after) {
            Authentication::Principal {
                principal,
                by_cookie,
                ..
            } => {
                assert!(by_cookie && *principal.name == *"alice");
                true
            }
            _ => false,
        }
    };
    let sealed = sealed(&fields);
    let (now, later) = (opens(0), opens(after));
    assert_eq!(now, sealed && host == HOST, "opened, or not, at {host:?}");
    assert!(now || !later, "it opens later only");
    let over = i64::try_from(after).is_ok_and(|after| after >= SESSION);
    assert!(!(later && over), "it opens after its end");
}

/// Whether the session is among the first eight that the cookies hold, as it was sealed.
fn sealed(fields: &[HeaderValue]) -> bool {
    let pairs = fields
        .iter()
        .flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    let values = pairs.filter_map(|pair| {
        let pair = pair.trim_ascii();
        let rest = pair
            .strip_prefix(SESSION_COOKIE.as_bytes())?
            .trim_ascii_start();
        let value = rest.strip_prefix(b"=")?.trim_ascii();
        (!value.is_empty()).then_some(value)
    });
    values
        .take(8)
        .any(|value| value == FIXTURE.issued(Is::Session))
}
