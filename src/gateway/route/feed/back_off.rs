//! Growing pauses between tries, each gateway's its own: after a control plane was away, or asks all to begin anew, they do not come
//! back in one moment.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LAST: Duration = Duration::from_secs(15);

/// See the module.
#[derive(Debug)]
pub(super) struct BackOff(Duration);

impl Default for BackOff {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl BackOff {
    /// Waits, and at least for `least`; the next time longer.
    pub(super) async fn wait(&mut self, least: Duration) {
        tokio::time::sleep(self.pause(least)).await;
    }

    fn pause(&mut self, least: Duration) -> Duration {
        let pause = self.0;
        self.0 = (self.0 * 2).min(LAST);
        least.min(LAST) + part(pause)
    }

    /// The next pause is a short one again.
    pub(super) fn reset(&mut self) {
        self.0 = FIRST;
    }
}

/// Between a quarter and all of it, at random.
fn part(whole: Duration) -> Duration {
    let mut random = [0; 2];
    // Without randomness the pause is still one.
    let _ = getrandom::fill(&mut random);
    whole.mul_f64(0.25 + 0.75 * f64::from(u16::from_ne_bytes(random)) / 65536.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_are_bounded_and_no_two_gateways_have_the_same() {
        let (mut one, mut other) = (BackOff::default(), BackOff::default());
        let (ones, others): (Vec<_>, Vec<_>) = (0..20)
            .map(|_| (one.pause(Duration::ZERO), other.pause(Duration::ZERO)))
            .unzip();
        assert!(ones[0] <= FIRST && ones[19] >= LAST / 4);
        assert!(
            ones.iter()
                .all(|pause| *pause >= FIRST / 4 && *pause <= LAST)
        );
        assert_ne!(ones, others);
        one.reset();
        assert!(one.pause(Duration::ZERO) <= FIRST);
        let asked = Duration::from_secs(3);
        assert!(one.pause(asked) >= asked);
        assert!(one.pause(Duration::MAX) <= 2 * LAST);
    }
}
