//! What the process says of itself to Prometheus: the `process_*` metrics, and the page that all its metrics are on.
//!
//! The `process` feature of the `prometheus` crate would do, but for its whole seconds of CPU time, too coarse for an idle process, and
//! the two crates it brings.

use std::collections::HashMap;
use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, Registry, TextEncoder};
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// The content type of what [`encode`] returns.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// All metrics of `registry` in Prometheus's text format.
pub fn encode(registry: &Registry) -> Vec<u8> {
    let mut page = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&registry.gather(), &mut page) {
        tracing::error!(%error, "a metric cannot be written; those after it are missing");
    }
    page
}

/// Collects `process_*` from `/proc/self`. What cannot be read is left out.
#[derive(Debug)]
pub struct ProcessCollector {
    descs: Vec<Desc>,
}

/// One metric, and how it is read off the process; without a value it is left out.
struct Row {
    name: &'static str,
    kind: MetricType,
    help: &'static str,
    value: fn(&Reading) -> Option<f64>,
}

/// By the names and in the units that Prometheus's client libraries agreed on.
const METRICS: [Row; 7] = [
    Row {
        name: "process_cpu_seconds_total",
        kind: MetricType::COUNTER,
        help: "Total user and system CPU time spent in seconds.",
        value: |process| Some(process.stat.as_ref()?.cpu_ticks as f64 / clock_ticks_per_second() as f64),
    },
    Row {
        name: "process_open_fds",
        kind: MetricType::GAUGE,
        help: "Number of open file descriptors.",
        value: |process| Some(process.open_fds? as f64),
    },
    Row {
        name: "process_max_fds",
        kind: MetricType::GAUGE,
        help: "Maximum number of open file descriptors.",
        value: |process| Some(process.max_fds? as f64),
    },
    Row {
        name: "process_virtual_memory_bytes",
        kind: MetricType::GAUGE,
        help: "Virtual memory size in bytes.",
        value: |process| Some(process.stat.as_ref()?.virtual_bytes as f64),
    },
    Row {
        name: "process_resident_memory_bytes",
        kind: MetricType::GAUGE,
        help: "Resident memory size in bytes.",
        value: |process| Some(process.stat.as_ref()?.resident_pages as f64 * page_size() as f64),
    },
    Row {
        name: "process_start_time_seconds",
        kind: MetricType::GAUGE,
        help: "Start time of the process since unix epoch in seconds.",
        value: |process| {
            let after_boot = process.stat.as_ref()?.start_ticks as f64 / clock_ticks_per_second() as f64;
            Some(process.boot_time? as f64 + after_boot)
        },
    },
    Row {
        name: "process_threads",
        kind: MetricType::GAUGE,
        help: "Number of OS threads in the process.",
        value: |process| Some(process.stat.as_ref()?.threads as f64),
    },
];

/// The state of one moment.
struct Reading {
    stat: Option<Stat>,
    open_fds: Option<usize>,
    max_fds: Option<u64>,
    /// Seconds since the epoch.
    boot_time: Option<u64>,
}

/// From `/proc/self/stat`, see proc_pid_stat(5).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    /// After boot.
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

// === impl ProcessCollector ===

impl ProcessCollector {
    /// For this process.
    pub fn new() -> Self {
        let descs = METRICS.iter().map(|row| {
            Desc::new(row.name.to_owned(), row.help.to_owned(), Vec::new(), HashMap::new())
                .expect("the names in the table are valid")
        });
        ProcessCollector { descs: descs.collect() }
    }
}

impl Default for ProcessCollector {
    fn default() -> Self {
        ProcessCollector::new()
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let process = Reading::take();
        METRICS.iter().filter_map(|row| Some(row.family((row.value)(&process)?))).collect()
    }
}

// === impl Row ===

impl Row {
    fn family(&self, value: f64) -> MetricFamily {
        let mut metric = Metric::default();
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(self.kind);
        family.set_metric(vec![metric]);
        family
    }
}

// === impl Reading ===

impl Reading {
    fn take() -> Self {
        Reading {
            stat: fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse),
            // One of them is the directory itself, open for the count.
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|fds| fds.count().saturating_sub(1)),
            max_fds: getrlimit(Resource::Nofile).current,
            boot_time: fs::read_to_string("/proc/stat").ok().as_deref().and_then(boot_time),
        }
    }
}

/// Seconds since the epoch, from the text of `/proc/stat`.
fn boot_time(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

// === impl Stat ===

impl Stat {
    fn parse(stat: &str) -> Option<Self> {
        // The second field is the program's name in parentheses and may have any character in it, those too.
        let (_, after_name) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
        // Numbered from 1 in the manual; the first one here is the third.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Stat {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    fn page() -> String {
        let registry = Registry::new();
        registry.register(Box::new(ProcessCollector::new())).unwrap();
        String::from_utf8(encode(&registry)).unwrap()
    }

    fn value(page: &str, name: &str) -> f64 {
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
    }

    #[test]
    fn all_metrics_of_a_process_are_on_the_page() {
        let page = page();
        assert!(page.contains("# TYPE process_cpu_seconds_total counter\n"), "{page}");
        assert!(page.contains("# TYPE process_resident_memory_bytes gauge\n"), "{page}");
        assert!(value(&page, "process_cpu_seconds_total") >= 0.0);
        let resident = value(&page, "process_resident_memory_bytes");
        assert!(resident > 100_000.0 && resident <= value(&page, "process_virtual_memory_bytes"));
        assert!(value(&page, "process_open_fds") >= 1.0);
        assert!(value(&page, "process_max_fds") >= value(&page, "process_open_fds"));
        assert!(value(&page, "process_threads") >= 1.0);
    }

    #[test]
    fn the_process_has_started_before_now_and_after_the_machine() {
        let started = value(&page(), "process_start_time_seconds");
        // The kernel keeps the boot's time in whole seconds, and may step it when the clock is set.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(started < now + 60.0, "{started} {now}");
        assert!(started >= Reading::take().boot_time.unwrap() as f64);
    }

    #[test]
    fn cpu_time_has_parts_of_a_second() {
        let reading = |cpu_ticks| Reading {
            stat: Some(Stat { cpu_ticks, threads: 1, start_ticks: 0, virtual_bytes: 0, resident_pages: 0 }),
            open_fds: None,
            max_fds: None,
            boot_time: None,
        };
        let cpu_seconds = &METRICS[0];
        assert_eq!((cpu_seconds.value)(&reading(1)), Some(1.0 / clock_ticks_per_second() as f64));
    }

    #[test]
    fn a_program_name_may_look_like_the_end_of_its_field() {
        let stat = "42 (a) b) 1 (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23";
        let expected =
            Stat { cpu_ticks: 11 + 12, threads: 17, start_ticks: 19, virtual_bytes: 20, resident_pages: 21 };
        assert_eq!(Stat::parse(stat), Some(expected));
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        assert_eq!(Stat::parse(""), None);
        assert_eq!(Stat::parse("42 (a) S 1 2"), None);
        assert_eq!(boot_time("cpu 1 2 3\n"), None);
        assert_eq!(boot_time("cpu 1 2 3\nbtime 1700000000\nprocesses 5\n"), Some(1_700_000_000));
    }
}
