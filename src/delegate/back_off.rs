//! Growing pauses between tries, not in step with other delegates'.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LAST: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct BackOff(Duration);

impl Default for BackOff {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl BackOff {
    /// Waits; the next time longer.
    pub(super) async fn wait(&mut self) {
        // Without randomness the pause is still one.
        let mut random = [0; 1];
        let _ = getrandom::fill(&mut random);
        tokio::time::sleep(self.0.mul_f64(0.75 + f64::from(random[0]) / 512.0)).await;
        self.0 = (self.0 * 2).min(LAST);
    }

    /// After something that held for so long, the next pause is a short one again.
    pub(super) fn held(&mut self, time: Duration) {
        if time >= LAST {
            self.0 = FIRST;
        }
    }
}
