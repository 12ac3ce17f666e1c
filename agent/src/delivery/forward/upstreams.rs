//! Which receiver gets the next parcel: weights, standby, health.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

use crate::config;
use crate::delivery::forward::connection::ConnectionId;
use crate::delivery::forward::parcel::Parcel;

/// What one connection holds, sent or about to be: parcels, however small, and bytes, but for the last parcel. Where an
/// acknowledgement takes 100 ms, that is 30 MB a second.
pub(super) const PIPELINE_PARCELS: usize = 16;
const PIPELINE_BYTES: usize = 3 << 20;
/// Pause after the first failure; doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// All receivers of an output.
#[derive(Debug)]
pub(super) struct Upstreams(Vec<Upstream>);

/// One receiver.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) config: config::Upstream,
    /// To its newest connection, while that takes parcels.
    pub(super) parcels: Option<mpsc::Sender<Parcel>>,
    /// The number of its newest connection.
    pub(super) connection: u64,
    /// Parcels given and not come back.
    in_flight: usize,
    bytes_in_flight: usize,
    health: Health,
    /// Of the smooth weighted round robin (nginx's algorithm).
    current: i64,
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Health {
    /// Never tried, or its connection was closed in peace.
    Idle,
    /// Connected.
    Up,
    /// Not to be tried before this.
    Down(Instant),
}

// === impl Upstreams ===

impl Upstreams {
    pub(super) fn new(configs: &[config::Upstream]) -> Self {
        let upstream = |config: &config::Upstream| Upstream {
            config: config.clone(),
            parcels: None,
            connection: 0,
            in_flight: 0,
            bytes_in_flight: 0,
            health: Health::Idle,
            current: 0,
            failures: 0,
        };
        Upstreams(configs.iter().map(upstream).collect())
    }

    pub(super) fn get(&mut self, index: usize) -> &mut Upstream {
        &mut self.0[index]
    }

    /// The next connection of a receiver: what it is called, and what it is to send.
    pub(super) fn open(&mut self, index: usize) -> (ConnectionId, mpsc::Receiver<Parcel>) {
        let upstream = &mut self.0[index];
        let (sender, receiver) = mpsc::channel(PIPELINE_PARCELS);
        upstream.connection += 1;
        upstream.parcels = Some(sender);
        (ConnectionId { upstream: index, number: upstream.connection }, receiver)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.0.iter().map(|upstream| upstream.in_flight).sum()
    }

    /// Whether a receiver takes parcels, as far as is known.
    pub(super) fn any_up(&self) -> bool {
        self.0.iter().any(|upstream| upstream.is_well())
    }

    /// Those without a connection that may be tried now: every receiver is kept connected, so that its health is known
    /// before it is needed.
    pub(super) fn unconnected(&self, now: Instant) -> Vec<usize> {
        let unconnected = |upstream: &Upstream| upstream.parcels.is_none() && upstream.may_try(now);
        (0..self.0.len()).filter(|index| unconnected(&self.0[*index])).collect()
    }

    /// When the next of those that are down may be tried again.
    pub(super) fn next_retry(&self, now: Instant) -> Option<Instant> {
        let retries = self.0.iter().filter_map(|upstream| match upstream.health {
            Health::Down(until) if until > now => Some(until),
            _ => None,
        });
        retries.min()
    }

    /// The receiver for the next parcel; none while all are down or full. Standbys count only while no other receiver
    /// is well.
    pub(super) fn choose(&mut self, now: Instant) -> Option<usize> {
        let primary = self.0.iter().any(|upstream| !upstream.config.standby && upstream.is_well());
        let mut total = 0;
        let mut best: Option<usize> = None;
        for index in 0..self.0.len() {
            let upstream = &mut self.0[index];
            if !upstream.may_try(now) || (primary && upstream.config.standby) || !upstream.has_room() {
                continue;
            }
            upstream.current += i64::from(upstream.config.weight);
            total += i64::from(upstream.config.weight);
            if best.is_none_or(|best| self.0[index].current > self.0[best].current) {
                best = Some(index);
            }
        }
        self.0[best?].current -= total;
        best
    }
}

// === impl Upstream ===

impl Upstream {
    /// It has not failed since it took something, or was never tried.
    fn is_well(&self) -> bool {
        self.failures == 0
    }

    fn may_try(&self, now: Instant) -> bool {
        !matches!(self.health, Health::Down(until) if until > now)
    }

    /// One parcel until it is known to take any.
    fn has_room(&self) -> bool {
        if self.health == Health::Up && self.is_well() {
            self.in_flight < PIPELINE_PARCELS && self.bytes_in_flight < PIPELINE_BYTES
        } else {
            self.in_flight == 0
        }
    }

    /// Gives a parcel to its connection.
    ///
    /// # Errors
    /// `Closed` when there is none, or one that takes nothing more: it retires, or its end is still to be told.
    pub(super) fn give(&mut self, parcel: Parcel) -> Result<(), TrySendError<Parcel>> {
        let bytes = parcel.entries().len();
        let result = match &self.parcels {
            Some(parcels) => parcels.try_send(parcel),
            None => Err(TrySendError::Closed(parcel)),
        };
        match &result {
            Ok(()) => self.gets(bytes),
            Err(TrySendError::Closed(_)) => self.parcels = None,
            Err(TrySendError::Full(_)) => {}
        }
        result
    }

    fn gets(&mut self, bytes: usize) {
        self.in_flight += 1;
        self.bytes_in_flight += bytes;
    }

    /// A parcel of so many bytes is back: acknowledged, or from a connection that has ended.
    pub(super) fn gives_back(&mut self, bytes: usize) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.bytes_in_flight = self.bytes_in_flight.saturating_sub(bytes);
    }

    /// The handshake is done; true when that is news. A pause goes on: an older connection has failed meanwhile.
    pub(super) fn connected(&mut self, now: Instant) -> bool {
        if self.may_try(now) {
            self.health = Health::Up;
        }
        self.failures > 0 || self.connection == 1
    }

    /// It has taken a parcel.
    pub(super) fn acknowledged(&mut self) {
        self.failures = 0;
        self.health = Health::Up;
    }

    /// The connection was closed in peace: its age, or the receiver wants one for each message.
    pub(super) fn closed(&mut self, now: Instant) {
        if self.may_try(now) {
            self.health = Health::Idle;
        }
    }

    /// A connection failed; true when that is news. One that fails during a pause belongs to the same outage. `jitter` makes
    /// a pause longer or shorter.
    pub(super) fn failed(&mut self, now: Instant, jitter: fn(Duration) -> Duration) -> bool {
        if !self.may_try(now) {
            return false;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.health = Health::Down(now + jitter(pause));
        self.failures += 1;
        self.failures == 1
    }
}

/// Between half and one and a half of a duration, so that the agents of a cluster do not come back all at once.
pub(super) fn jittered(duration: Duration) -> Duration {
    let mut random = [0; 2];
    // Without a random source the middle is as good.
    let random = getrandom::fill(&mut random).map_or(u16::MAX / 2, |()| u16::from_ne_bytes(random));
    duration / 2 + duration.mul_f64(f64::from(random) / f64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstreams(configs: &[(u32, bool)]) -> Upstreams {
        let config = |(weight, standby): &(u32, bool)| config::Upstream {
            address: "h:1".to_owned(),
            weight: *weight,
            standby: *standby,
        };
        Upstreams::new(&configs.iter().map(config).collect::<Vec<_>>())
    }

    #[tokio::test(start_paused = true)]
    async fn parcels_are_shared_by_weight_and_standbys_wait() {
        let mut all = upstreams(&[(3, false), (1, false), (9, true)]);
        for index in 0..3 {
            all.get(index).connected(Instant::now());
        }
        let mut counts = [0; 3];
        for _ in 0..400 {
            counts[all.choose(Instant::now()).unwrap()] += 1;
        }
        assert_eq!(counts, [300, 100, 0]);
        assert!(all.get(0).failed(Instant::now(), jittered));
        assert_eq!(all.choose(Instant::now()), Some(1));
        all.get(1).failed(Instant::now(), jittered);
        assert_eq!(all.choose(Instant::now()), Some(2), "only now the standby");
        tokio::time::advance(Duration::from_secs(1)).await;
        let chosen: std::collections::BTreeSet<_> =
            (0..40).filter_map(|_| all.choose(Instant::now())).collect();
        assert_eq!(
            chosen,
            [0, 1, 2].into(),
            "the others are tried, and the standby helps until one has taken something"
        );
        all.get(1).acknowledged();
        assert_eq!((0..40).filter(|_| all.choose(Instant::now()) == Some(2)).count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_their_limit_and_an_acknowledgement_ends_them() {
        let mut all = upstreams(&[(1, false)]);
        let upstream = all.get(0);
        for _ in 0..40 {
            upstream.failed(Instant::now(), jittered);
            assert!(!upstream.failed(Instant::now(), |_| LONGEST_PAUSE * 9), "the same outage");
            tokio::time::advance(LONGEST_PAUSE * 2).await;
        }
        upstream.failed(Instant::now(), jittered);
        let longest = all.next_retry(Instant::now()).unwrap();
        assert!(
            longest > Instant::now() + FIRST_PAUSE * 3 / 2
                && longest <= Instant::now() + LONGEST_PAUSE * 3 / 2
        );
        all.get(0).closed(Instant::now());
        assert_eq!(all.choose(Instant::now()), None, "a pause goes on");
        all.get(0).acknowledged();
        assert_eq!(all.choose(Instant::now()), Some(0));
        all.get(0).failed(Instant::now(), jittered);
        assert!(all.next_retry(Instant::now()).unwrap() <= Instant::now() + FIRST_PAUSE * 3 / 2);
    }

    #[test]
    fn a_receiver_gets_one_parcel_until_it_has_answered_and_then_as_many_as_its_pipeline_holds() {
        let mut all = upstreams(&[(1, false)]);
        assert_eq!(all.choose(Instant::now()), Some(0));
        all.get(0).gets(100);
        assert_eq!(all.choose(Instant::now()), None);
        all.get(0).connected(Instant::now());
        let fill = |all: &mut Upstreams, bytes: usize| {
            let mut count = 0;
            while let Some(index) = all.choose(Instant::now()) {
                all.get(index).gets(bytes);
                count += 1;
            }
            count
        };
        assert_eq!(fill(&mut all, 100), PIPELINE_PARCELS - 1);
        (0..PIPELINE_PARCELS).for_each(|_| all.get(0).gives_back(100));
        assert_eq!(fill(&mut all, PIPELINE_BYTES - 1), 2);
    }
}
