//! Parting: at a stop streams are told to go one after the other, before the time for it is over.
//!
//! For half of that time they go on: much ends by itself. Then they end evenly until nine tenths of it, or a second before its end, so
//! that their clients do not all come to the next gateway at once. Requests and their answers have all of the time.
//!
//! Not here: what still runs when it is over (`drain`).

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Ending, Live};
use crate::gateway::{Gateway, account::End};

/// Streams that end together: a clock that ticks more often gains nothing.
const TICK: Duration = Duration::from_millis(20);

/// How often it is looked for what became a stream after the others were told.
const LATE_TICK: Duration = Duration::from_millis(100);

/// So long the last one has to take its leave.
const LEAVE: Duration = Duration::from_secs(1);

/// Ends all streams within nine tenths of the time, and goes on until it is not polled any more.
pub(crate) async fn part(gateway: Arc<Gateway>, within: Duration) {
    let begun = Instant::now();
    tokio::time::sleep(within / 2).await;
    let streams = streams(&gateway);
    if !streams.is_empty() {
        tracing::info!(streams = streams.len(), "telling streams to go");
    }
    let count = u32::try_from(streams.len()).unwrap_or(u32::MAX);
    let span = last(within) - within / 2;
    for (number, live) in (0..count).zip(&streams) {
        let due = begun + within / 2 + span.mul_f64(f64::from(number) / f64::from(count));
        if due > Instant::now() + TICK {
            tokio::time::sleep_until(due).await;
        }
        live.end(ending());
    }
    tokio::time::sleep_until(begun + last(within)).await;
    // Whatever became a stream since.
    loop {
        for live in self::streams(&gateway) {
            live.end(ending());
        }
        tokio::time::sleep(LATE_TICK).await;
    }
}

fn ending() -> Ending {
    Ending {
        end: End::Drained,
        detail: "the gateway stops".into(),
        message: "the gateway is restarting".into(),
    }
}

/// When the last one is told.
fn last(within: Duration) -> Duration {
    let late = (within * 9 / 10).min(within.saturating_sub(LEAVE));
    late.max(within / 2)
}

fn streams(gateway: &Gateway) -> Vec<Arc<Live>> {
    let mut all = gateway.lives.all();
    all.retain(|live| live.is_stream());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_is_told_in_time_to_take_its_leave() {
        for (within, expected) in [(30_000, 27_000), (3_000, 2_000), (1_500, 750), (0, 0)] {
            let [within, expected] = [within, expected].map(Duration::from_millis);
            assert_eq!(last(within), expected);
        }
    }
}
