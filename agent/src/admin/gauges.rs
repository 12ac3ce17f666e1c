//! Gauges that are worked out when somebody asks for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus::core::Collector;
use prometheus::{Gauge, GaugeVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::admin::View;
use crate::admin::status;
use crate::logs::container::Container;
use crate::logs::layout::ContainerPath;

/// Rates of writing are those of an interval of this length.
const RATE_INTERVAL: Duration = Duration::from_secs(5);

/// The gauges.
pub(super) struct Gauges {
    in_flight: IntGaugeVec,
    unaccounted: IntGaugeVec,
    lag: IntGaugeVec,
    oldest_unread: GaugeVec,
    retention_left: Gauge,
    files: IntGaugeVec,
    output_up: IntGaugeVec,
    remote_write_lag: GaugeVec,
    spool_bytes: IntGaugeVec,
    reload_successful: IntGauge,
    memory_budget: IntGauge,
    memory_used: IntGauge,
    written: Mutex<HashMap<Arc<ContainerPath>, Written>>,
}

/// How much a container had written when last looked at, and how fast it writes.
struct Written {
    bytes: u64,
    at: Instant,
    rate: f64,
}

// === impl Gauges ===

impl Gauges {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let name = |name: &str| format!("sidelight_{name}");
        let vec = |called: &str, help: &str, label: &str| {
            registered(registry, IntGaugeVec::new(Opts::new(name(called), help), &[label]))
        };
        let int = |called: &str, help: &str| registered(registry, IntGauge::new(name(called), help));
        let seconds = |called: &str, help: &str| {
            registered(registry, GaugeVec::new(Opts::new(name(called) + "_seconds", help), &["output"]))
        };
        let retention_left = Gauge::new(
            "sidelight_log_retention_left_seconds",
            "Until the kubelet deletes the first unread byte, at the present rates; +Inf while nothing is unread.",
        );
        let build = vec("build_info", "Always 1; the version.", "version")?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let reload_successful =
            int("config_last_reload_successful", "Whether the last reload took the new config.")?;
        reload_successful.set(1);
        Ok(Gauges {
            in_flight: vec(
                "log_source_bytes_in_flight",
                "Bytes of log files that are read, neither delivered nor dropped.",
                "output",
            )?,
            unaccounted: vec(
                "log_source_bytes_unaccounted",
                "Bytes that are in no counter: always 0, else a defect.",
                "output",
            )?,
            lag: vec(
                "log_lag_bytes",
                "Bytes of log files that the receiver has not acknowledged.",
                "output",
            )?,
            oldest_unread: seconds(
                "log_oldest_unread",
                "Age of the newest record that an output has read in the file where it is furthest behind; 0: nothing is unread.",
            )?,
            retention_left: registered(registry, retention_left)?,
            files: vec(
                "log_files",
                "Generations of log files by state: open, deleted (held open), closed; and logs in which one is unreadable.",
                "state",
            )?,
            output_up: vec("output_up", "Whether a receiver of the output takes what is sent.", "output")?,
            remote_write_lag: seconds(
                "remote_write_lag",
                "Since the oldest request that waits for its receiver was closed; 0: none waits.",
            )?,
            spool_bytes: vec(
                "spool_bytes",
                "Bytes of requests that wait on disk for their receiver.",
                "output",
            )?,
            reload_successful,
            memory_budget: int("memory_budget_bytes", "memory_budget of the config.")?,
            memory_used: int("memory_used_bytes", "Payload in memory, of all outputs.")?,
            written: Mutex::default(),
        })
    }

    pub(super) fn set_reloaded(&self, successful: bool) {
        self.reload_successful.set(i64::from(successful));
    }

    pub(super) fn set_unaccounted(&self, output: &str, bytes: u64) {
        self.unaccounted.with_label_values(&[output]).set(int(bytes));
    }

    pub(super) fn update(&self, view: &View) {
        let containers = view.inventory.containers();
        // An output that a reload has removed is not to keep its last values.
        [&self.in_flight, &self.lag, &self.output_up, &self.spool_bytes]
            .iter()
            .for_each(|gauge| gauge.reset());
        [&self.oldest_unread, &self.remote_write_lag].iter().for_each(|gauge| gauge.reset());
        self.memory_budget.set(int(view.config.memory_budget));
        self.memory_used.set(int(view.outputs.iter().map(|output| output.share.used() as u64).sum()));
        for (output, lag) in view.outputs.iter().zip(status::lags(view)) {
            let label = [output.name.as_str()];
            self.lag.with_label_values(&label).set(int(lag));
            self.in_flight.with_label_values(&label).set(output.status.account().bytes_in_flight().max(0));
            self.output_up.with_label_values(&label).set(i64::from(output.status.state.is_up()));
        }
        for output in &view.sample_outputs {
            let label = [output.name.as_str()];
            // Before anything was sent, nobody knows.
            if output.state.is_up() || output.state.last_error().is_some() {
                self.output_up.with_label_values(&label).set(i64::from(output.state.is_up()));
            }
            self.spool_bytes.with_label_values(&label).set(int(output.queue.spooled().bytes));
            self.remote_write_lag.with_label_values(&label).set(output.queue.oldest().map_or(0.0, age));
        }
        for (index, output) in view.outputs.iter().enumerate() {
            let oldest =
                containers.iter().filter_map(|container| oldest_unread(container, index)).fold(0.0, f64::max);
            self.oldest_unread.with_label_values(&[&output.name]).set(oldest);
        }
        for state in ["open", "deleted", "closed"] {
            let count = containers.iter().flat_map(|container| container.generations());
            let count = count.filter(|generation| status::state(generation) == state).count();
            self.files.with_label_values(&[state]).set(int(count as u64));
        }
        let unreadable = containers.iter().filter(|container| container.problem().is_some()).count();
        self.files.with_label_values(&["unreadable"]).set(int(unreadable as u64));
        // How long an app keeps its files, nobody knows.
        let left = if view.config.sidecar { f64::INFINITY } else { self.retention_left(view, &containers) };
        self.retention_left.set(left);
    }

    /// The kubelet keeps `max_files` times `max_size` bytes of a container; what is unread of them is `lag`, and the
    /// rest is written over at the rate of the last interval between two looks.
    fn retention_left(&self, view: &View, containers: &[Arc<Container>]) -> f64 {
        let kept = (view.config.logs.kubelet.max_size * view.config.logs.kubelet.max_files) as f64;
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let left = containers.iter().filter_map(|container| {
            let lag: u64 = container.generations().iter().map(|generation| generation.backlog()).sum();
            let rate = written.get(&container.path)?.rate;
            (lag > 0 && rate > 0.0).then(|| ((kept - lag as f64) / rate).max(0.0))
        });
        left.fold(f64::INFINITY, f64::min)
    }

    /// Looks at how fast every container writes; to be called regularly, whoever asks for metrics how often.
    pub(super) fn look(&self, view: &View) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if written.values().next().is_some_and(|any| now.duration_since(any.at) < RATE_INTERVAL) {
            return;
        }
        let mut before = std::mem::take(&mut *written);
        for container in view.inventory.containers() {
            let bytes = container.generations().iter().map(|generation| generation.size()).sum();
            let last = before.remove(&container.path);
            let rate = match &last {
                // Less than before: a file is gone.
                Some(last) if bytes < last.bytes => last.rate,
                Some(last) => (bytes - last.bytes) as f64 / now.duration_since(last.at).as_secs_f64(),
                None => 0.0,
            };
            written.insert(container.path.clone(), Written { bytes, at: now, rate });
        }
    }
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: Result<C, prometheus::Error>,
) -> Result<C, prometheus::Error> {
    let collector = collector?;
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

/// Age in seconds of the newest record that an output has read of a container that it is behind in.
fn oldest_unread(container: &Container, output: usize) -> Option<f64> {
    let generation = container.generations().into_iter().find(|generation| generation.lag(output) > 0)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
    // Nothing of it is read: then it is at least as old as our knowing of it.
    let Some(last) = generation.last_record(output) else {
        return Some(generation.opened.elapsed().as_secs_f64());
    };
    Some((now - last as f64).max(0.0))
}

/// Seconds since a time, which is milliseconds since the epoch.
fn age(time: i64) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    (now - time as f64 / 1000.0).max(0.0)
}

fn int(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
