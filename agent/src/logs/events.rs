//! Metrics from logs: how many records of each level a workload's containers have written, and how many panics of Rust.
//!
//! Counted as records are encoded, each by the output that comes to it first. A workload counts on when one of its pods
//! goes, and begins anew when it has had none on the node: so there are as many counters as containers.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::logs::parse::Level;

const EVENTS: &str = "sidelight_log_events_total";
const PANICS: &str = "sidelight_log_panics_total";
/// By index; what says no level, or one that nobody knows, is the last.
const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "unknown"];

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
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(workload).or_default().clone()
    }

    /// The counters of the workloads that have containers on the node, by namespace and name.
    pub fn counts(&self) -> Vec<(Workload, Arc<EventCounts>)> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.retain(|_, counts| Arc::strong_count(counts) > 1);
        counts.iter().map(|(workload, counts)| (workload.clone(), counts.clone())).collect()
    }

    /// A page in the text format for each workload, by namespace and name.
    pub fn pages(&self) -> BTreeMap<(String, String), String> {
        let counts = self.counts();
        let of_workloads = counts
            .chunk_by(|(one, _), (other, _)| (&one.namespace, &one.name) == (&other.namespace, &other.name));
        let page = |counts: &[(Workload, Arc<EventCounts>)]| {
            let Workload { namespace, name, .. } = &counts[0].0;
            ((namespace.clone(), name.clone()), page(counts, |_| Vec::new()))
        };
        of_workloads.map(page).collect()
    }
}

/// A page in the text format, each sample with these labels of its workload.
pub fn page(
    counts: &[(Workload, Arc<EventCounts>)],
    labels: impl Fn(&Workload) -> Vec<(String, String)>,
) -> String {
    let mut page = format!("# HELP {EVENTS} Records of the log, by level.\n# TYPE {EVENTS} counter\n");
    let labelled = |workload: &Workload| {
        let labels = labels(workload);
        let labels = labels.iter().map(|(name, value)| format!(",{name}=\"{value}\"")).collect::<String>();
        format!("container=\"{}\"{labels}", workload.container)
    };
    for (workload, counts) in counts {
        let labels = labelled(workload);
        for (level, count) in LEVELS.iter().zip(&counts.levels) {
            let count = count.load(Ordering::Relaxed);
            let _ = writeln!(page, "{EVENTS}{{{labels},level=\"{level}\"}} {count}");
        }
    }
    let _ = write!(page, "# HELP {PANICS} Panics of Rust in the log.\n# TYPE {PANICS} counter\n");
    for (workload, counts) in counts {
        let panics = counts.panics.load(Ordering::Relaxed);
        let _ = writeln!(page, "{PANICS}{{{}}} {panics}", labelled(workload));
    }
    page
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
        let page = &events.pages()[&("shop".to_owned(), "web".to_owned())];
        let counted = |line: &str| page.lines().any(|other| other == line);
        assert!(counted("sidelight_log_events_total{container=\"app\",level=\"error\"} 2"), "{page}");
        assert!(counted("sidelight_log_events_total{container=\"app\",level=\"unknown\"} 2"), "{page}");
        assert!(counted("sidelight_log_events_total{container=\"app\",level=\"trace\"} 0"), "{page}");
        assert!(counted("sidelight_log_panics_total{container=\"app\"} 1"), "{page}");
    }

    #[test]
    fn a_workload_without_containers_on_the_node_is_forgotten() {
        let events = Events::default();
        let (first, second) = (events.of(web()), events.of(web()));
        first.count(None, b"");
        drop(first);
        assert!(events.pages().values().any(|page| page.contains("unknown\"} 1")), "another has it yet");
        drop(second);
        assert!(events.pages().is_empty());
    }
}
