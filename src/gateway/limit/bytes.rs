//! Bytes per second: what is over its rate waits, and nothing is cut.
//!
//! Who moved bytes pays behind those who did before, in every bucket that counts them, and reads on when its payment's turn has
//! come: so streams of one bucket take turns piece by piece. A newcomer stands behind all that was moved before it. Nobody reads
//! while it waits, so the sender is held back and nothing is kept here. A pause of a bucket saves up a second's worth.
//!
//! Places are counted in bytes, and the rate is looked up whenever somebody looks how far it is: a change counts for streams
//! that wait already.
//!
//! Not here: where bytes are moved (`forward`, `relay`).

use std::{
    future::Future,
    ops::Deref,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use super::buckets::{Bucket, Held};

/// So often who waits looks whether the rate is another one.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

const SECOND: u128 = 1_000_000_000;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the client.
    Up,
    /// To the client.
    Down,
}

/// What was moved in one direction, and how much of it is paid for.
#[derive(Default)]
pub(super) struct Meter {
    moved: AtomicU64,
    paid: AtomicU64,
    /// Until when it was paid, in nanoseconds.
    until: AtomicU64,
}

impl Meter {
    /// The place of who moved so many bytes.
    fn moved(&self, bytes: u64) -> u64 {
        self.moved.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    /// The place of a newcomer.
    fn end(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// How long until the turn of a place has come, if it has not.
    fn wait(&self, place: u64, rate: u64, now: u64) -> Option<Duration> {
        self.pay(rate, now);
        let missing = place.checked_sub(self.paid.load(Ordering::Relaxed))?;
        let nanos = (u128::from(missing) * SECOND).div_ceil(u128::from(rate));
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        (nanos > 0).then(|| Duration::from_nanos(nanos))
    }

    /// Pays for the time since it was last paid.
    fn pay(&self, rate: u64, now: u64) {
        let until = self.until.load(Ordering::Relaxed);
        let elapsed = u128::from(now.saturating_sub(until));
        let bytes = elapsed * u128::from(rate) / SECOND;
        // A part of a byte is paid later: no time is lost. Who comes second finds it paid.
        let paid_time = (bytes * SECOND / u128::from(rate)) as u64;
        if bytes > 0 && self.advance(until, until + paid_time) {
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            let more = |paid: u64| Some(paid.saturating_add(bytes));
            let _ = self
                .paid
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        }
        let most = self.end().saturating_add(rate);
        self.paid.fetch_min(most, Ordering::Relaxed);
    }

    fn advance(&self, from: u64, to: u64) -> bool {
        self.until
            .compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

/// Where one direction of a stream stands.
pub(crate) struct Turn {
    places: [u64; 3],
    sleep: Option<Pin<Box<Sleep>>>,
}

/// Whose bytes the bytes of a request or stream are.
pub(crate) struct Owners<B> {
    pub(super) asker: B,
    pub(super) gitspace: B,
    pub(super) share: Option<B>,
}

/// A request or stream is counted for as long as this lives.
pub(crate) type Permit = Owners<Held>;

/// Pays for bytes and holds no place.
pub(crate) type Payer = Owners<Arc<Bucket>>;

impl Permit {
    /// For what may outlive it.
    pub(crate) fn payer(&self) -> Payer {
        Owners {
            asker: Arc::clone(self.asker.bucket()),
            gitspace: Arc::clone(self.gitspace.bucket()),
            share: self.share.as_ref().map(|share| Arc::clone(share.bucket())),
        }
    }
}

impl<B: Deref<Target = Bucket>> Owners<B> {
    /// Ready when bytes may be moved this way. To be asked before they are read.
    pub(crate) fn poll(
        &self,
        way: Way,
        turn: &mut Option<Box<Turn>>,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        match self.is_metered() {
            false => Poll::Ready(()),
            true => self.poll_turn(way, turn, context),
        }
    }

    /// Counts what was moved.
    pub(crate) fn moved(&self, way: Way, turn: &mut Option<Box<Turn>>, bytes: usize) {
        if let Some(turn) = turn
            && self.is_metered()
        {
            for (place, bucket) in turn.places.iter_mut().zip(self.buckets()) {
                if bucket.allowance.bytes() > 0 {
                    *place = bucket.meter(way).moved(bytes as u64);
                }
            }
        }
    }

    fn is_metered(&self) -> bool {
        self.buckets().any(|bucket| bucket.allowance.bytes() > 0)
    }

    fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        let share = self.share.as_deref();
        [&*self.asker, &*self.gitspace].into_iter().chain(share)
    }

    #[cold]
    fn poll_turn(
        &self,
        way: Way,
        turn: &mut Option<Box<Turn>>,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let turn = turn.get_or_insert_with(|| Box::new(self.newcomer(way)));
        while let Some(wait) = self.wait(way, turn) {
            let until = Instant::now() + wait.min(LOOK_AGAIN);
            let sleep = turn
                .sleep
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
            sleep.as_mut().reset(until);
            ready!(sleep.as_mut().poll(context));
        }
        Poll::Ready(())
    }

    fn newcomer(&self, way: Way) -> Turn {
        let mut places = [0; 3];
        for (place, bucket) in places.iter_mut().zip(self.buckets()) {
            if bucket.allowance.bytes() > 0 {
                *place = bucket.meter(way).end();
            }
        }
        Turn {
            places,
            sleep: None,
        }
    }

    /// How long until the turn has come in all buckets, if it has not.
    fn wait(&self, way: Way, turn: &Turn) -> Option<Duration> {
        let waits = turn.places.iter().zip(self.buckets());
        let waits = waits.filter_map(|(place, bucket)| match bucket.allowance.bytes() {
            0 => None,
            rate => bucket
                .meter(way)
                .wait(*place, rate, bucket.allowance.elapsed()),
        });
        waits.max()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::{
        config,
        gateway::limit::{Asker, Limits},
    };

    const KIB: u64 = 1024;
    const PIECE: usize = 16 * 1024;

    fn limits(text: &str) -> config::Limits {
        toml::from_str(text).unwrap()
    }

    fn permit(limits: &Limits, name: &str) -> Permit {
        let gitspace = "api-k3x9q2".parse().unwrap();
        let asker = Asker::Principal(&name.into());
        let permit = limits.admit(asker, &gitspace, Some("a share"), true);
        permit.unwrap()
    }

    /// Moves so many pieces.
    async fn go(permit: &Permit, way: Way, turn: &mut Option<Box<Turn>>, pieces: usize) {
        for _ in 0..pieces {
            poll_fn(|context| permit.poll(way, turn, context)).await;
            permit.moved(way, turn, PIECE);
        }
    }

    async fn time(permit: &Permit, way: Way, pieces: usize) -> Duration {
        let start = Instant::now();
        go(permit, way, &mut None, pieces).await;
        start.elapsed()
    }

    fn seconds(time: Duration, range: std::ops::Range<f64>) {
        let seconds = time.as_secs_f64();
        assert!(range.contains(&seconds), "{seconds}");
    }

    #[test]
    fn a_meter_pays_by_time_and_saves_up_one_second() {
        const SECOND: u64 = 1_000_000_000;
        let meter = Meter::default();
        let rate = 100 * KIB;
        assert_eq!(meter.wait(0, rate, 0), None);
        let place = meter.moved(100 * KIB);
        assert_eq!(meter.wait(place, rate, 0), Some(Duration::from_secs(1)));
        assert_eq!(
            meter.wait(place, rate, SECOND / 2),
            Some(Duration::from_millis(500))
        );
        // A higher rate counts for what is missing.
        assert_eq!(
            meter.wait(place, 2 * rate, SECOND / 2),
            Some(Duration::from_millis(250))
        );
        assert_eq!(meter.wait(place, rate, SECOND), None);
        // An hour's pause is worth one second.
        assert_eq!(meter.wait(place, rate, 3_600 * SECOND), None);
        let place = meter.moved(200 * KIB);
        let wait = meter.wait(place, rate, 3_600 * SECOND);
        assert_eq!(wait, Some(Duration::from_secs(1)));
    }

    #[test]
    fn no_part_of_a_byte_is_lost_when_it_is_looked_at_often() {
        let meter = Meter::default();
        let rate = 3;
        let place = meter.moved(30);
        let mut now = 0;
        while meter.wait(place, rate, now).is_some() {
            now += 7_000_003;
        }
        assert!((10_000_000_000..10_100_000_000).contains(&now), "{now}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_has_its_rate_in_each_direction() {
        let limits = Limits::new(&limits("bytes_per_principal = \"160KiB\""));
        let permit = permit(&limits, "alice");
        let up = time(&permit, Way::Up, 101);
        let down = time(&permit, Way::Down, 51);
        let (up, down) = tokio::join!(up, down);
        seconds(up, 9.0..10.3);
        seconds(down, 4.0..5.3);
    }

    #[tokio::test(start_paused = true)]
    async fn the_narrowest_of_its_scopes_counts() {
        for scope in ["principal", "gitspace", "share"] {
            let text = format!("bytes_per_{scope} = \"160KiB\"");
            let limits = Limits::new(&limits(&text));
            seconds(
                time(&permit(&limits, "alice"), Way::Down, 51).await,
                4.0..5.3,
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn streams_of_one_principal_take_turns_and_others_do_not_wait() {
        let limits = Limits::new(&limits("bytes_per_principal = \"160KiB\""));
        let (one, two) = (permit(&limits, "alice"), permit(&limits, "alice"));
        let bob = permit(&limits, "bob");
        let (one, two, bob) = tokio::join!(
            time(&one, Way::Down, 51),
            time(&two, Way::Down, 51),
            time(&bob, Way::Down, 11)
        );
        seconds(one, 9.0..10.3);
        seconds(two, 9.0..10.3);
        seconds(bob, 0.0..1.2);
    }

    #[tokio::test(start_paused = true)]
    async fn many_short_bodies_are_held_to_the_rate_too() {
        let limits = Limits::new(&limits("bytes_per_principal = \"160KiB\""));
        let start = Instant::now();
        for _ in 0..101 {
            go(&permit(&limits, "alice"), Way::Down, &mut None, 1).await;
        }
        seconds(start.elapsed(), 9.0..10.3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_rate_counts_for_who_waits_already() {
        let all = Limits::new(&limits("bytes_per_principal = \"16KiB\""));
        let permit = permit(&all, "alice");
        let mut turn = None;
        let start = Instant::now();
        let change = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            all.set(&limits("bytes_per_principal = \"16MiB\""));
        };
        // At the first rate it were 100 s.
        tokio::join!(change, go(&permit, Way::Down, &mut turn, 100));
        seconds(start.elapsed(), 10.0..10.5);
        all.set(&limits("bytes_per_principal = \"16KiB\""));
        let start = Instant::now();
        go(&permit, Way::Down, &mut turn, 11).await;
        seconds(start.elapsed(), 9.0..11.5);
        all.set(&limits(""));
        let start = Instant::now();
        go(&permit, Way::Down, &mut turn, 1_000).await;
        seconds(start.elapsed(), 0.0..0.1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_began_without_a_rate_gets_one() {
        let all = Limits::new(&limits(""));
        let permit = permit(&all, "alice");
        let mut turn = None;
        go(&permit, Way::Up, &mut turn, 1_000).await;
        assert!(turn.is_none(), "it cost nothing");
        all.set(&limits("bytes_per_gitspace = \"160KiB\""));
        let start = Instant::now();
        go(&permit, Way::Up, &mut turn, 51).await;
        seconds(start.elapsed(), 4.0..5.3);
    }
}
