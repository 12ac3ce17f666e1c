//! Whether the threads that have work get on with it.
//!
//! A thread says when it has work (`busy`), after each step (`beat`), and when it has none or waits for somebody else (`idle`): only one
//! that is busy can be stalled.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// All heartbeats of a process.
#[derive(Debug)]
pub struct Heartbeats {
    start: Instant,
    all: Mutex<Vec<Weak<Heartbeat>>>,
}

/// One thread's. When the thread drops it, nobody watches the thread any more.
#[derive(Debug)]
pub struct Heartbeat {
    name: String,
    start: Instant,
    /// Milliseconds from `start` to the last step, plus one; 0 while idle.
    last_step: AtomicU64,
}

// === impl Heartbeats ===

impl Heartbeats {
    /// Nobody is watched yet.
    pub fn new() -> Self {
        Heartbeats { start: Instant::now(), all: Mutex::default() }
    }

    /// Watches one more thread, which begins idle.
    pub fn register(&self, name: impl Into<String>) -> Arc<Heartbeat> {
        let heartbeat =
            Arc::new(Heartbeat { name: name.into(), start: self.start, last_step: AtomicU64::new(0) });
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|heartbeat| heartbeat.strong_count() > 0);
        all.push(Arc::downgrade(&heartbeat));
        heartbeat
    }

    /// The name of the thread that has been busy without a step for the longest time, if that is `limit` or more.
    pub fn stalled(&self, limit: Duration) -> Option<String> {
        self.stalled_after(self.start.elapsed(), limit)
    }

    fn stalled_after(&self, elapsed: Duration, limit: Duration) -> Option<String> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .filter_map(Weak::upgrade)
            .filter_map(|heartbeat| {
                let still = elapsed.saturating_sub(heartbeat.last_step()?);
                (still >= limit).then(|| (still, heartbeat.name.clone()))
            })
            .max()
            .map(|(_, name)| name)
    }
}

impl Default for Heartbeats {
    fn default() -> Self {
        Heartbeats::new()
    }
}

// === impl Heartbeat ===

impl Heartbeat {
    /// There is work; it counts as a step.
    pub fn busy(&self) {
        self.busy_after(self.start.elapsed());
    }

    /// A step is done. Nothing while idle.
    pub fn beat(&self) {
        self.beat_after(self.start.elapsed());
    }

    /// There is no work, or somebody else has to move first.
    pub fn idle(&self) {
        self.last_step.store(0, Ordering::Relaxed);
    }

    fn busy_after(&self, elapsed: Duration) {
        // 500 million years fit.
        self.last_step.store(elapsed.as_millis() as u64 + 1, Ordering::Relaxed);
    }

    fn beat_after(&self, elapsed: Duration) {
        if self.last_step().is_some() {
            self.busy_after(elapsed);
        }
    }

    /// From `start`; `None` while idle.
    fn last_step(&self) -> Option<Duration> {
        self.last_step.load(Ordering::Relaxed).checked_sub(1).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_busy_thread_without_a_step_is_stalled() {
        let heartbeats = Heartbeats::new();
        let reader = heartbeats.register("reader-0");
        reader.busy_after(seconds(5));
        assert_eq!(heartbeats.stalled_after(seconds(34), LIMIT), None);
        assert_eq!(heartbeats.stalled_after(seconds(35), LIMIT), Some("reader-0".to_owned()));
    }

    #[test]
    fn a_step_ends_the_stall() {
        let heartbeats = Heartbeats::new();
        let reader = heartbeats.register("reader-0");
        reader.busy_after(seconds(0));
        reader.beat_after(seconds(40));
        assert_eq!(heartbeats.stalled_after(seconds(69), LIMIT), None);
        assert_eq!(heartbeats.stalled_after(seconds(70), LIMIT), Some("reader-0".to_owned()));
    }

    #[test]
    fn who_waits_is_not_stalled_and_a_late_beat_does_not_change_that() {
        let heartbeats = Heartbeats::new();
        let reader = heartbeats.register("reader-0");
        assert_eq!(heartbeats.stalled_after(seconds(1_000), LIMIT), None, "before the first work");
        reader.busy_after(seconds(1_000));
        reader.idle();
        reader.beat_after(seconds(1_001));
        assert_eq!(heartbeats.stalled_after(seconds(2_000), LIMIT), None);
    }

    #[test]
    fn the_longest_stall_is_named() {
        let heartbeats = Heartbeats::new();
        let (late, early) = (heartbeats.register("late"), heartbeats.register("early"));
        late.busy_after(seconds(10));
        early.busy_after(seconds(5));
        assert_eq!(heartbeats.stalled_after(seconds(100), LIMIT), Some("early".to_owned()));
    }

    #[test]
    fn a_thread_that_has_ended_is_forgotten() {
        let heartbeats = Heartbeats::new();
        heartbeats.register("ended").busy();
        let _other = heartbeats.register("other");
        assert_eq!(heartbeats.stalled(Duration::ZERO), None);
        assert_eq!(heartbeats.all.lock().unwrap().len(), 1);
    }

    #[test]
    fn the_clock_runs_by_itself() {
        let heartbeats = Heartbeats::new();
        let reader = heartbeats.register("reader-0");
        reader.busy();
        reader.beat();
        assert_eq!(heartbeats.stalled(Duration::ZERO), Some("reader-0".to_owned()));
        assert_eq!(heartbeats.stalled(Duration::from_secs(3_600)), None);
        reader.idle();
        assert_eq!(heartbeats.stalled(Duration::ZERO), None);
    }
}
