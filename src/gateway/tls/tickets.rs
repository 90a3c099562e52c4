//! TLS tickets: what a client shows to resume a session (RFC 8446 §4.6.1, RFC 5077), sealed by keys that replicas share.
//!
//! The keys come from `gateway.keys` and are made anew for each client-certificate policy, since a resumed session asks for no
//! certificate: a ticket of one policy is garbage under another. A ticket tells when its session began; what is issued on
//! resumption keeps that time, so no session outlives [`LIFETIME`]. Each ticket has an AES-256-GCM key of its own, so that the
//! number of tickets under one key is no concern.
//!
//! ```text
//! name 16 | salt 16 | nonce 12 | sealed (begin, 8 bytes of seconds, big endian | session) | tag 16
//! ```
//!
//! Not here: what is in a session, and whether it fits the handshake (rustls).

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac,
};
use rustls::server::ProducesTickets;

const NAME: usize = 16;
const SALT: usize = 16;
const BEGIN: usize = 8;
/// Seconds from a full handshake to the last resumption of its session.
const LIFETIME: u64 = 12 * 3600;
/// The same where clients show certificates, which are looked at in full handshakes only.
const LIFETIME_WITH_CERTIFICATE: u64 = 3600;
/// Clocks of replicas may differ by so many seconds.
const SKEW: u64 = 60;

/// The keys of one client-certificate policy: the current one, then the previous one.
pub(super) struct TicketKeys {
    keys: Vec<Key>,
    lifetime: u64,
}

struct Key {
    name: [u8; NAME],
    key: hmac::Key,
}

impl TicketKeys {
    /// Of the gateway's keys (current first) and what tells the policy apart; without keys there are no tickets.
    pub(super) fn new(base: &[hmac::Key], policy: &[u8], with_certificate: bool) -> Arc<Self> {
        Arc::new(Self {
            keys: base.iter().map(|base| Key::new(base, policy)).collect(),
            lifetime: if with_certificate {
                LIFETIME_WITH_CERTIFICATE
            } else {
                LIFETIME
            },
        })
    }

    fn seal(&self, begin: u64, session: &[u8]) -> Option<Vec<u8>> {
        let key = self.keys.first()?;
        let mut fresh = [0; SALT + NONCE_LEN];
        getrandom::fill(&mut fresh).ok()?;
        let (salt, nonce) = fresh.split_at(SALT);
        let mut sealed = Vec::with_capacity(BEGIN + session.len());
        sealed.extend_from_slice(&begin.to_be_bytes());
        sealed.extend_from_slice(session);
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let tag = key
            .sealing(salt)?
            .seal_in_place_separate_tag(nonce, Aad::from(key.name), &mut sealed)
            .ok()?;
        Some([&key.name[..], &fresh, &sealed, tag.as_ref()].concat())
    }

    /// When the session began, and the session.
    fn open(&self, ticket: &[u8], now: u64) -> Option<(u64, Vec<u8>)> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let key = self.keys.iter().find(|key| key.name == *name)?;
        let (salt, rest) = rest.split_first_chunk::<SALT>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = key
            .sealing(salt)?
            .open_in_place(nonce, Aad::from(name), &mut sealed)
            .ok()?;
        let (begin, session) = opened.split_first_chunk::<BEGIN>()?;
        let begin = u64::from_be_bytes(*begin);
        let holds = begin <= now + SKEW && now < begin.saturating_add(self.lifetime);
        holds.then(|| (begin, session.to_vec()))
    }
}

impl Key {
    fn new(base: &hmac::Key, policy: &[u8]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(base, policy).as_ref());
        let mut name = [0; NAME];
        name.copy_from_slice(&hmac::sign(&key, b"name").as_ref()[..NAME]);
        Self { name, key }
    }

    /// The key of the one ticket with this salt.
    fn sealing(&self, salt: &[u8]) -> Option<LessSafeKey> {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(b"ticket");
        context.update(salt);
        let key = UnboundKey::new(&AES_256_GCM, context.sign().as_ref()).ok()?;
        Some(LessSafeKey::new(key))
    }
}

/// The tickets of one handshake: what it resumed from decides when what it issues ends.
pub(super) struct Tickets {
    keys: Arc<TicketKeys>,
    now: u64,
    begin: AtomicU64,
}

impl Tickets {
    pub(super) fn new(keys: &Arc<TicketKeys>, now: SystemTime) -> Arc<Self> {
        let now = now
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        Arc::new(Self {
            keys: Arc::clone(keys),
            now,
            begin: AtomicU64::new(now),
        })
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets(***)")
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        !self.keys.keys.is_empty()
    }

    fn lifetime(&self) -> u32 {
        let age = self.now.saturating_sub(self.begin.load(Ordering::Relaxed));
        u32::try_from(self.keys.lifetime.saturating_sub(age)).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        self.keys.seal(self.begin.load(Ordering::Relaxed), session)
    }

    /// A handshake resumes from the last ticket that it opened. If that does not fit for another reason, the ticket that is
    /// issued only ends earlier than it could.
    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (begin, session) = self.keys.open(ticket, self.now)?;
        self.begin.store(begin, Ordering::Relaxed);
        Some(session)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn base(secret: u8) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &[secret; 32])
    }

    fn at(keys: &Arc<TicketKeys>, seconds: u64) -> Arc<Tickets> {
        Tickets::new(keys, UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds))
    }

    #[test]
    fn a_ticket_opens_under_its_own_keys_and_policy_only() {
        let keys = TicketKeys::new(&[base(1)], b"none", false);
        let ticket = at(&keys, 0).encrypt(b"session").unwrap();
        let opens = |bases: &[hmac::Key], policy: &[u8]| {
            at(&TicketKeys::new(bases, policy, false), 1)
                .decrypt(&ticket)
                .is_some_and(|session| session == b"session")
        };
        assert!(opens(&[base(1)], b"none"));
        assert!(
            opens(&[base(2), base(1)], b"none"),
            "the previous key counts"
        );
        assert!(!opens(&[base(2)], b"none"));
        assert!(!opens(&[base(1)], b"another policy"));
        assert!(!opens(&[], b"none"));
    }

    #[test]
    fn two_tickets_of_one_session_have_nothing_in_common_but_the_key_name() {
        let keys = TicketKeys::new(&[base(1)], b"none", false);
        let [one, two] = [(); 2].map(|()| at(&keys, 0).encrypt(&[7; 64]).unwrap());
        assert_eq!(one[..NAME], two[..NAME]);
        let same = one[NAME..].iter().zip(&two[NAME..]).filter(|(a, b)| a == b);
        assert!(same.count() < 12);
    }

    #[test]
    fn a_ticket_that_is_cut_or_changed_in_any_byte_does_not_open() {
        let keys = TicketKeys::new(&[base(1)], b"none", false);
        let ticket = at(&keys, 0).encrypt(b"session").unwrap();
        for index in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[index] ^= 1;
            assert!(at(&keys, 0).decrypt(&changed).is_none(), "byte {index}");
            assert!(at(&keys, 0).decrypt(&ticket[..index]).is_none());
        }
        assert!(
            at(&keys, 0)
                .decrypt(&[&ticket[..], b"x"].concat())
                .is_none()
        );
        assert!(at(&keys, 0).decrypt(&[0; 70_000]).is_none());
    }

    #[test]
    fn resumption_does_not_prolong_a_session() {
        for (with_certificate, lifetime) in [(false, LIFETIME), (true, LIFETIME_WITH_CERTIFICATE)] {
            let keys = TicketKeys::new(&[base(1)], b"none", with_certificate);
            let first = at(&keys, 0);
            assert_eq!(u64::from(first.lifetime()), lifetime);
            let ticket = first.encrypt(b"session").unwrap();
            let resumed = at(&keys, lifetime - 10);
            assert!(resumed.decrypt(&ticket).is_some());
            assert_eq!(resumed.lifetime(), 10);
            let ticket = resumed.encrypt(b"session").unwrap();
            assert!(at(&keys, lifetime - 1).decrypt(&ticket).is_some());
            assert!(at(&keys, lifetime).decrypt(&ticket).is_none());
        }
    }

    #[test]
    fn a_ticket_from_the_future_does_not_open() {
        let keys = TicketKeys::new(&[base(1)], b"none", false);
        let ticket = at(&keys, SKEW + 1).encrypt(b"session").unwrap();
        assert!(at(&keys, 0).decrypt(&ticket).is_none());
        assert!(at(&keys, 1).decrypt(&ticket).is_some());
    }
}
