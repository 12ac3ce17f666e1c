//! What is counted in the logs of the node's workloads, as series.

use std::fmt::Write;
use std::sync::Arc;

use crate::metrics::containers::write;
use crate::metrics::discover::PodLabels;

const EVENTS: &str = "sidelight_log_events_total";
const PANICS: &str = "sidelight_log_panics_total";

/// What is counted for the containers of one name of a workload.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Namespace.
    pub namespace: String,
    /// The pod's owner, else the pod.
    pub name: String,
    /// Container.
    pub container: String,
    /// Records by level.
    pub levels: Vec<(&'static str, u64)>,
    /// Panics of Rust.
    pub panics: u64,
}

/// Gives what is counted until now, by namespace and name.
pub type Workloads = Arc<dyn Fn() -> Vec<Workload> + Send + Sync>;

/// A page in the text format, each sample with these labels of its workload.
pub fn page<'a>(workloads: impl Iterator<Item = (&'a Workload, PodLabels)> + Clone) -> String {
    let mut page = format!("# HELP {EVENTS} Records of the log, by level.\n# TYPE {EVENTS} counter\n");
    for (workload, labels) in workloads.clone() {
        for (level, count) in &workload.levels {
            let sample = (vec![("level", (*level).to_owned())], *count as f64);
            write(&mut page, EVENTS, &labels, &workload.container, &sample);
        }
    }
    let _ = write!(page, "# HELP {PANICS} Panics of Rust in the log.\n# TYPE {PANICS} counter\n");
    for (workload, labels) in workloads {
        write(&mut page, PANICS, &labels, &workload.container, &(Vec::new(), workload.panics as f64));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name of an owner may be any text: Kubernetes only asks that there is one.
    #[test]
    fn a_workload_cannot_write_lines_of_its_own() {
        let workload = Workload {
            namespace: "shop".into(),
            name: "x\"} 0\nforged 1".into(),
            container: "app".into(),
            levels: vec![("error", 2), ("unknown", 0)],
            panics: 1,
        };
        let labels = vec![("workload".to_owned(), workload.name.clone())];
        let expected = "# HELP sidelight_log_events_total Records of the log, by level.\n# TYPE sidelight_log_events_total counter\n\
            sidelight_log_events_total{container=\"app\",workload=\"x\\\"} 0\\nforged 1\",level=\"error\"} 2\n\
            sidelight_log_events_total{container=\"app\",workload=\"x\\\"} 0\\nforged 1\",level=\"unknown\"} 0\n\
            # HELP sidelight_log_panics_total Panics of Rust in the log.\n# TYPE sidelight_log_panics_total counter\n\
            sidelight_log_panics_total{container=\"app\",workload=\"x\\\"} 0\\nforged 1\"} 1\n";
        assert_eq!(page([(&workload, labels)].into_iter()), expected);
    }
}
