//! Metrics from logs: how many records of each level a workload's containers have written, and how many panics of Rust.
//!
//! Counted as records are encoded, each by the output that comes to it first. A workload counts on when one of its pods
//! goes, and begins anew when it has had none on the node: so there are as many counters as containers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::logs::parse::Level;

/// By index; what says no level, or one that nobody knows, is the last.
const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "unknown"];
/// With so many workloads, those that are gone are forgotten although nobody has asked for their last counts.
const MAX_GONE: usize = 4096;

/// What is counted of the node. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Events(Arc<Mutex<BTreeMap<Workload, Arc<EventCounts>>>>);

/// The containers of one name of a workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workload {
    /// Namespace.
    pub namespace: String,
    /// The pod's owner, else the pod.
    pub name: String,
    /// Container.
    pub container: String,
}

/// Counters of a workload, which its containers share.
#[derive(Debug, Default)]
pub struct EventCounts {
    levels: [AtomicU64; LEVELS.len()],
    panics: AtomicU64,
}

// === impl Events ===

impl Events {
    /// The counters of a workload, for as long as somebody has them.
    pub fn of(&self, workload: Workload) -> Arc<EventCounts> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= MAX_GONE {
            counts.retain(|_, counts| Arc::strong_count(counts) > 1);
        }
        counts.entry(workload).or_default().clone()
    }

    /// The counters of the workloads that have containers on the node, or had some until now.
    pub fn counts(&self) -> Vec<(Workload, Arc<EventCounts>)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(workload, counts)| (workload.clone(), counts.clone())).collect()
    }

    /// The same; afterwards those are forgotten that have no containers any more.
    pub fn last_counts(&self) -> Vec<(Workload, Arc<EventCounts>)> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = counts.iter().map(|(workload, counts)| (workload.clone(), counts.clone())).collect();
        // One is here, and one above.
        counts.retain(|_, counts| Arc::strong_count(counts) > 2);
        all
    }
}

// === impl EventCounts ===

impl EventCounts {
    /// Counts a record of this level and text.
    pub fn count(&self, level: Option<Level>, text: &[u8]) {
        let level = level.map_or(LEVELS.len() - 1, |level| level as usize);
        self.levels[level].fetch_add(1, Ordering::Relaxed);
        if is_panic(text) {
            self.panics.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records by level.
    pub fn levels(&self) -> Vec<(&'static str, u64)> {
        let counts = self.levels.iter().map(|count| count.load(Ordering::Relaxed));
        LEVELS.into_iter().zip(counts).collect()
    }

    /// Panics.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }
}

/// Whether a record begins as Rust's panic handler does (`std::panicking::default_hook`): `thread 'main' (7) panicked at`.
fn is_panic(text: &[u8]) -> bool {
    let Some(behind) = text.strip_prefix(b"thread '") else { return false };
    let line = &behind[..memchr::memchr(b'\n', behind).unwrap_or(behind.len())];
    memchr::memmem::find(line, b" panicked at ").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> Workload {
        Workload { namespace: "shop".into(), name: "web".into(), container: "app".into() }
    }

    #[test]
    fn levels_and_panics_are_counted_for_the_workload() {
        let events = Events::default();
        let (first, second) = (events.of(web()), events.of(web()));
        first.count(Some(Level::Error), b"{}");
        second.count(Some(Level::Error), b"thread 'main' was started");
        second.count(None, b"thread 'w 1' (7) panicked at src/main.rs:1:2:\nboom");
        second.count(None, b"thread 'w'\n panicked at ");
        let [(_, counts)] = &events.counts()[..] else { panic!() };
        let expected = [("trace", 0), ("debug", 0), ("info", 0), ("warn", 0), ("error", 2), ("unknown", 2)];
        assert_eq!((&counts.levels()[..], counts.panics()), (&expected[..], 1));
    }

    #[test]
    fn a_workload_without_containers_on_the_node_is_asked_once_more_and_forgotten() {
        let events = Events::default();
        let (first, second) = (events.of(web()), events.of(web()));
        drop(first);
        assert_eq!((events.last_counts().len(), events.counts().len()), (1, 1), "another has it yet");
        second.count(None, b"");
        drop(second);
        assert_eq!(events.counts().len(), 1);
        let last = events.last_counts();
        assert_eq!(last[0].1.levels()[5], ("unknown", 1));
        assert!(events.counts().is_empty());
    }
}
