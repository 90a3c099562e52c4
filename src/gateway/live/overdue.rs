//! Overdue: streams after a switch that were quiet, or lived, for longer than they may.
//!
//! Each thread of the data path looks over its own, often enough that one is at most a twentieth of its time late, and ten seconds. A
//! timer for each would take more memory than the rest of what we keep of it.
//!
//! Not here: answers of events, whose bodies have deadlines of their own (`forward::body`).

use std::time::{Duration, Instant};

use super::{Ending, Live, Shard, Stream};
use crate::{config::Timeouts, gateway::account::End};

const SELDOM: Duration = Duration::from_secs(10);
const OFTEN: Duration = Duration::from_millis(10);

/// Ends what is overdue, for as long as it is polled.
pub(crate) async fn look_over(shard: &Shard, timeouts: &Timeouts) {
    let limits = Limits {
        idle: timeouts.tunnel_idle.duration(),
        lifetime: timeouts.tunnel_lifetime.duration(),
    };
    let Some(every) = limits.every() else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(every).await;
        limits.look_over(shard, Instant::now());
    }
}

/// How long a stream may be quiet, and live.
#[derive(Debug, Clone, Copy)]
struct Limits {
    idle: Option<Duration>,
    lifetime: Option<Duration>,
}

impl Limits {
    /// How often it is looked. None: nothing is ever overdue.
    fn every(self) -> Option<Duration> {
        let shortest = self.idle.into_iter().chain(self.lifetime).min()?;
        Some((shortest / 20).clamp(OFTEN, SELDOM))
    }

    fn look_over(self, shard: &Shard, now: Instant) {
        for (_, live) in shard.lock().iter() {
            if !matches!(live.stream.get(), None | Some(Stream::Events))
                && let Some((end, detail)) = self.overdue(live, now)
            {
                live.end(Ending {
                    end,
                    detail: detail.into(),
                    message: "".into(),
                });
            }
        }
    }

    fn overdue(self, live: &Live, now: Instant) -> Option<(End, &'static str)> {
        let over = |limit: Option<Duration>, time| limit.is_some_and(|limit| time >= limit);
        if over(self.lifetime, live.after(now)) {
            return Some((End::Lifetime, "it lived for tunnel_lifetime"));
        }
        over(self.idle, live.idle(now)).then_some((End::Idle, "nothing passed for tunnel_idle"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::{super::tests::about, *};
    use crate::gateway::{
        limit::Way,
        live::{Lives, Seat},
    };

    const IDLE: Duration = Duration::from_secs(60);
    const LIFETIME: Duration = Duration::from_secs(600);
    const LIMITS: Limits = Limits {
        idle: Some(IDLE),
        lifetime: Some(LIFETIME),
    };

    fn seat(lives: &Lives, kind: Option<Stream>) -> Seat {
        let seat = lives.shard(0).enter(about(), SystemTime::now());
        if let Some(kind) = kind {
            seat.live().becomes(kind);
        }
        seat
    }

    fn end(seat: &Seat) -> Option<End> {
        seat.live().ending().map(|ending| ending.end)
    }

    #[test]
    fn a_quiet_stream_ends_and_one_that_talks_or_waits_for_its_rate_does_not() {
        let lives = Lives::new(1);
        let [quiet, talks, waits] = [(); 3].map(|()| seat(&lives, Some(Stream::WebSocket)));
        let others = [None, Some(Stream::Events)].map(|kind| seat(&lives, kind));
        let start = Instant::now();
        let look = |seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            LIMITS.look_over(&lives.shard(0), now);
        };
        waits.live().waits_for_its_rate();
        for seconds in [50, 100, 150] {
            talks
                .live()
                .moved(Way::Up, 1, start + Duration::from_secs(seconds));
            look(seconds + 5);
        }
        assert_eq!(end(&quiet), Some(End::Idle));
        for seat in [&talks, &waits, &others[0], &others[1]] {
            assert_eq!(end(seat), None);
        }
        waits
            .live()
            .moved(Way::Down, 1, start + Duration::from_secs(155));
        look(214);
        assert_eq!((end(&talks), end(&waits)), (Some(End::Idle), None));
        look(216);
        assert_eq!(end(&waits), Some(End::Idle));
    }

    #[test]
    fn a_stream_lives_no_longer_than_it_may() {
        let lives = Lives::new(1);
        let seat = seat(&lives, Some(Stream::Other("raw".into())));
        let start = Instant::now();
        seat.live().moved(Way::Up, 1, start + LIFETIME);
        LIMITS.look_over(&lives.shard(0), start + LIFETIME - IDLE);
        assert_eq!(end(&seat), None);
        LIMITS.look_over(&lives.shard(0), start + LIFETIME);
        assert_eq!(end(&seat), Some(End::Lifetime));
    }

    #[test]
    fn it_is_looked_often_enough() {
        let every = |idle: Option<u64>, lifetime: Option<u64>| {
            let [idle, lifetime] = [idle, lifetime].map(|time| time.map(Duration::from_millis));
            Limits { idle, lifetime }.every()
        };
        assert_eq!(every(Some(800), None), Some(Duration::from_millis(40)));
        assert_eq!(every(Some(3_600_000), Some(200)), Some(OFTEN));
        assert_eq!(every(Some(3_600_000), Some(86_400_000)), Some(SELDOM));
        assert_eq!(every(None, None), None);
    }
}
