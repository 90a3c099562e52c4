//! The last token of a connection: what its digest was.
//!
//! A connection's requests mostly carry the same token. Whoever sends it again is spared the hashing, and nothing else: whether it
//! still holds is looked up under its digest as ever, so rotation, revocation and expiry count at once.

use std::sync::{Mutex, PoisonError};

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::cache::Digest;

/// The last token that was verified on a connection. Balancers carry many users' requests on one: then it helps nobody, and harms
/// nobody.
#[derive(Default)]
pub struct LastToken(Mutex<Option<(Box<[u8]>, Digest)>>);

impl LastToken {
    /// The token's digest.
    pub(super) fn digest(&self, token: &[u8]) -> Digest {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            // In constant time: on a balancer's connection it may be another user's.
            Some((last, digest)) if verify_slices_are_equal(last, token).is_ok() => *digest,
            _ => Digest::token(token),
        }
    }

    /// It holds: it is the connection's last one now.
    pub(super) fn keep(&self, token: &[u8], digest: Digest) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_none_or(|(_, known)| *known != digest) {
            *last = Some((token.into(), digest));
        }
    }
}

impl std::fmt::Debug for LastToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LastToken")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_tokens_whatever_came_before() {
        let last = LastToken::default();
        for token in [&b"a.b.c"[..], b"a.b.c", b"a.b.d", b"a.b.cc", b"", b"a.b.c"] {
            let digest = last.digest(token);
            assert_eq!(digest, Digest::token(token));
            last.keep(token, digest);
            assert_eq!(last.digest(token), Digest::token(token));
        }
    }

    #[test]
    fn its_text_is_in_no_message() {
        let last = LastToken::default();
        last.keep(b"secret.token.text", Digest::token(b"secret.token.text"));
        assert!(!format!("{last:?}").contains("secret"));
    }
}
