//! One record into the open chunk: sampled, limited, redacted, parsed and encoded in one go.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use sidelight_contract::annotations::Parse;

use crate::checkpoint::account::DropReason;
use crate::cluster::Pod;
use crate::config::{Config, Labels};
use crate::logs::encode::{Format, Fragment, ValueSink};
use crate::logs::generation::Generation;
use crate::logs::lane::Lane;
use crate::logs::layout::ContainerPath;
use crate::logs::metrics::LogMetrics;
use crate::logs::parse::{Level, Outcome, parse};
use crate::logs::settings::Settings;
use crate::logs::split::{Stream, Time};

/// Bursts up to so many seconds of a rate pass.
const BURST_SECONDS: u64 = 2;

/// A record before it is encoded.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Time of its first line.
    pub time: Time,
    /// Its stream.
    pub stream: Stream,
    /// Its text.
    pub content: &'a [u8],
    /// Whether the text was cut.
    pub truncated: bool,
    /// Source bytes that it stands for.
    pub source: u64,
    /// Where it begins in its file.
    pub start: u64,
}

/// What the encoder keeps about one container for one output.
#[derive(Debug, Default)]
pub struct Kept {
    /// Metadata of the container, encoded: with the restart that it is for.
    fragment: Option<(u32, Fragment)>,
    limit: Limit,
}

/// A rate by record time, so that a replay decides alike: the virtual time up to which records are let through.
#[derive(Debug, Default, Clone, Copy)]
pub struct Limit {
    through: i128,
}

/// The rates of namespaces, by output: the readers share them.
pub type NamespaceLimits = Arc<Mutex<HashMap<(usize, String), Limit>>>;

/// Encodes records in one format.
#[derive(Debug)]
pub struct RecordEncoder<F> {
    format: F,
    config: Arc<Config>,
    namespaces: NamespaceLimits,
    redacted: [Vec<u8>; 2],
    valid: String,
}

// === impl Kept ===

impl Kept {
    /// The container's metadata have changed, or it will not be read for a while.
    pub fn forget(&mut self) {
        self.fragment = None;
    }

    /// Bytes that a record has beside its text.
    pub fn overhead(&self) -> usize {
        self.fragment.as_ref().map_or(1024, |(_, fragment)| fragment.len()) + 64
    }
}

// === impl Limit ===

impl Limit {
    /// Whether a record of this time is within `rate` records a second (the generic cell rate algorithm).
    fn admits(&mut self, time: Time, rate: u64) -> bool {
        let now = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
        let interval = 1_000_000_000 / i128::from(rate.max(1));
        let through = self.through.max(now);
        if through - now > i128::from(BURST_SECONDS) * 1_000_000_000 - interval {
            return false;
        }
        self.through = through + interval;
        true
    }
}

// === impl RecordEncoder ===

impl<F: Format> RecordEncoder<F> {
    /// An encoder of a reader.
    pub fn new(config: &Arc<Config>, namespaces: NamespaceLimits, format: F) -> Self {
        RecordEncoder {
            format,
            config: config.clone(),
            namespaces,
            redacted: Default::default(),
            valid: String::new(),
        }
    }

    /// Adds the record to the lane's open chunk, or counts why not.
    pub fn encode(
        &mut self,
        lane: &mut Lane,
        generation: &Arc<Generation>,
        settings: &Settings,
        kept: &mut Kept,
        record: Record<'_>,
        metrics: &LogMetrics,
    ) {
        if let Some(reason) = self.refuses(lane.output, generation, settings, kept, &record) {
            lane.drop_bytes(generation, reason, 1, record.source);
            return;
        }
        let level = self.write(lane, generation, settings, kept, &record, true, metrics);
        let dropped = settings.drop.iter().any(|rule| rule.drops(record.content, level));
        if dropped {
            lane.rollback();
            lane.drop_bytes(generation, DropReason::Filter, 1, record.source);
        } else {
            lane.add_record(generation, record.source);
        }
    }

    /// Adds the record as raw text.
    pub fn encode_raw(
        &mut self,
        lane: &mut Lane,
        generation: &Arc<Generation>,
        settings: &Settings,
        kept: &mut Kept,
        record: Record<'_>,
        metrics: &LogMetrics,
    ) {
        self.write(lane, generation, settings, kept, &record, false, metrics);
        lane.add_record(generation, record.source);
    }

    fn refuses(
        &self,
        output: usize,
        generation: &Generation,
        settings: &Settings,
        kept: &mut Kept,
        record: &Record<'_>,
    ) -> Option<DropReason> {
        if let Some(share) = settings.sample {
            let identity = generation.identity().map_or(0, |identity| identity.hash());
            if mix(identity ^ mix(record.start)) >= share {
                return Some(DropReason::Sample);
            }
        }
        if settings.rate > 0 && !kept.limit.admits(record.time, settings.rate) {
            return Some(DropReason::Rate);
        }
        let rate = self.config.logs.rate.namespace;
        if rate > 0 {
            let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
            let limit = namespaces.entry((output, generation.container().namespace.clone())).or_default();
            if !limit.admits(record.time, rate) {
                return Some(DropReason::Rate);
            }
        }
        None
    }

    /// Encodes behind what the chunk holds; gives the record's level.
    #[allow(clippy::too_many_arguments, reason = "the parts of one record, and where it goes")]
    fn write(
        &mut self,
        lane: &mut Lane,
        generation: &Generation,
        settings: &Settings,
        kept: &mut Kept,
        record: &Record<'_>,
        parsed: bool,
        metrics: &LogMetrics,
    ) -> Option<Level> {
        let restart = generation.restart;
        if kept.fragment.as_ref().is_none_or(|(of, _)| *of != restart) {
            let config = &self.config;
            let fragment = self
                .format
                .fragment(|sink| metadata(sink, config, generation.container(), settings, restart));
            kept.fragment = Some((restart, fragment));
        }
        let fragment = kept.fragment.as_ref().map(|(_, fragment)| fragment)?;
        let [first, second] = &mut self.redacted;
        let redacted = match &settings.redactors[..] {
            [] => record.content,
            [one] => one.apply(record.content, first),
            [one, two, ..] => two.apply(one.apply(record.content, first), second),
        };
        let text = match std::str::from_utf8(redacted) {
            Ok(text) => text,
            Err(_) => {
                metrics.parse_failures.utf8.inc();
                self.valid.clear();
                self.valid.push_str(&String::from_utf8_lossy(redacted));
                &self.valid
            }
        };
        let start = lane.buffer.len();
        if parsed && settings.parse != Parse::None {
            match write_parsed(
                &mut self.format,
                &self.config,
                &mut lane.buffer,
                settings,
                fragment,
                record,
                text,
            ) {
                Outcome::Parsed(level) => return level,
                Outcome::Plain => {}
                Outcome::Invalid => metrics.parse_failures.format.inc(),
            }
            lane.buffer.truncate(start);
        }
        let mut sink = self.format.begin(&mut lane.buffer, record.time, record.stream, fragment);
        sink.key("log");
        sink.str(text);
        remarks(&mut sink, settings, record);
        F::end(sink);
        None
    }
}

/// Encodes the record with its text's fields. When the text has none, what was written is for the caller to take back.
fn write_parsed<F: Format>(
    format: &mut F,
    config: &Config,
    buffer: &mut Vec<u8>,
    settings: &Settings,
    fragment: &Fragment,
    record: &Record<'_>,
    text: &str,
) -> Outcome {
    let into = config.logs.parse_into.as_str();
    let mut sink = format.begin(buffer, record.time, record.stream, fragment);
    if !into.is_empty() {
        sink.key(into);
        sink.map_begin();
    }
    let outcome = parse(settings.parse, text, into.is_empty(), &mut sink);
    if !matches!(outcome, Outcome::Parsed(_)) {
        return outcome;
    }
    if !into.is_empty() {
        sink.map_end();
    }
    if config.logs.keep_log {
        sink.key("log");
        sink.str(text);
    }
    remarks(&mut sink, settings, record);
    F::end(sink);
    outcome
}

/// What is to say about this one record, if anything.
fn remarks(sink: &mut impl ValueSink, settings: &Settings, record: &Record<'_>) {
    if !settings.partial_metadata && !record.truncated {
        return;
    }
    sink.key("sidelight");
    sink.map_begin();
    if settings.partial_metadata {
        sink.key("metadata");
        sink.str("partial");
    }
    if record.truncated {
        sink.key("truncated");
        sink.bool(true);
    }
    sink.map_end();
}

/// The entries that all records of a container share: the keys of Fluent Bit's kubernetes filter, and the operator's.
fn metadata(
    sink: &mut impl ValueSink,
    config: &Config,
    path: &ContainerPath,
    settings: &Settings,
    restart: u32,
) {
    let pod = settings.pod.as_deref();
    sink.key("kubernetes");
    sink.map_begin();
    entry(sink, "namespace_name", &path.namespace);
    entry(sink, "pod_name", &path.pod);
    entry(sink, "pod_id", pod.map_or(&path.uid, |pod| &pod.uid));
    entry(sink, "container_name", &path.container);
    entry(sink, "host", &config.node);
    if let Some(pod) = pod {
        pod_entries(sink, config, path, pod, restart);
    }
    sink.map_end();
    if let Some(labels) =
        pod.and_then(|pod| pod.namespace_labels.as_ref()).filter(|_| config.logs.namespace_labels)
    {
        sink.key("kubernetes_namespace");
        sink.map_begin();
        entry(sink, "name", &path.namespace);
        map(sink, config, "labels", labels.iter());
        sink.map_end();
    }
    for (key, value) in &config.logs.add {
        sink.key(key);
        json(sink, value);
    }
}

fn pod_entries(sink: &mut impl ValueSink, config: &Config, path: &ContainerPath, pod: &Pod, restart: u32) {
    if let Some(ip) = &pod.ip {
        entry(sink, "pod_ip", ip);
    }
    if let Some(container) = pod.containers.iter().find(|container| container.name == path.container) {
        entry(sink, "container_image", &container.image);
        if let Some(hash) = &container.image_id {
            entry(sink, "container_hash", hash);
        }
        if let Some(id) = container.id.as_ref().filter(|_| container.restart_count == restart) {
            entry(sink, "docker_id", id);
        }
    }
    if let Some(owner) = &pod.owner {
        entry(sink, "owner_kind", &owner.kind);
        entry(sink, "owner_name", &owner.name);
    }
    match &config.logs.labels {
        Labels::Every(true) => map(sink, config, "labels", pod.labels.iter()),
        Labels::Every(false) => {}
        Labels::Named(names) => {
            map(sink, config, "labels", pod.labels.iter().filter(|(name, _)| names.contains(name)))
        }
    }
    map(
        sink,
        config,
        "annotations",
        pod.annotations.iter().filter(|(name, _)| config.logs.annotations.contains(name)),
    );
}

fn entry(sink: &mut impl ValueSink, key: &str, value: &str) {
    sink.key(key);
    sink.str(value);
}

/// A map of texts; an empty one is left out.
fn map<'a>(
    sink: &mut impl ValueSink,
    config: &Config,
    name: &str,
    entries: impl Iterator<Item = (&'a String, &'a String)>,
) {
    let mut entries = entries.peekable();
    if entries.peek().is_none() {
        return;
    }
    sink.key(name);
    sink.map_begin();
    for (key, value) in entries {
        if config.logs.labels_dedot {
            entry(sink, &key.replace('.', "_"), value)
        } else {
            entry(sink, key, value)
        }
    }
    sink.map_end();
}

fn json(sink: &mut impl ValueSink, value: &Value) {
    match value {
        Value::Null => sink.null(),
        Value::Bool(value) => sink.bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => sink.i64(number),
            (None, Some(number)) => sink.u64(number),
            (None, None) => sink.f64(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => sink.str(text),
        Value::Array(items) => {
            sink.array_begin();
            items.iter().for_each(|item| json(sink, item));
            sink.array_end();
        }
        Value::Object(entries) => {
            sink.map_begin();
            for (key, value) in entries {
                sink.key(key);
                json(sink, value);
            }
            sink.map_end();
        }
    }
}

/// A good hash of one number (the finaliser of SplitMix64).
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
