//! One record into the open chunk: sampled, limited, redacted, parsed and encoded in one go.

mod metadata;
mod text;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sidelight_contract::annotations::Parse;

use crate::checkpoint::account::DropReason;
use crate::config::Config;
use crate::logs::encode::{Format, Fragment, ValueSink};
use crate::logs::generation::Generation;
use crate::logs::lane::Lane;
use crate::logs::metrics::LogMetrics;
use crate::logs::parse::{Level, Outcome, parse};
use crate::logs::record::metadata::metadata;
use crate::logs::record::text::{Text, Texts};
use crate::logs::settings::Settings;
use crate::logs::split::{Stream, Time};

/// Seconds whose records are remembered: those a minute apart do not push out each other's.
const SECONDS: usize = 64;

/// Texts that make the processing of a record panic, since nothing else does.
#[cfg(test)]
pub(super) const PANICS: &str = "panics, however it is sent";
#[cfg(test)]
pub(super) const PANICS_WHEN_PARSED: &str = "panics, unless it is sent raw";

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
    /// It has no head, or made the pass panic: it is sent as it is, past rates, samples, drop rules and parsing.
    pub raw: bool,
    /// Source bytes that it stands for.
    pub source: u64,
    /// Where it begins: the file and the offset.
    pub origin: (&'a Generation, u64),
}

/// What the encoder keeps about one container for one output.
#[derive(Debug, Default)]
pub struct Kept {
    /// Metadata of the container, encoded, by stream: with the restart that they are for.
    fragments: [Option<(u32, Fragment)>; 2],
    limit: Limit,
    /// What is left of the namespace's rate, where there is one.
    namespace_limit: Option<Arc<Mutex<Limit>>>,
}

/// A rate by record time, so that a replay decides alike. Each second has its own allowance, with what the second before
/// has left: a record that comes late, from a slower container or a backlog, is counted in its own.
#[derive(Debug, Default, Clone)]
pub struct Limit {
    /// A second, and how many records it still lets through; made when first needed.
    seconds: Vec<(i64, u64)>,
}

/// The rates of namespaces, by output: the readers share them.
pub type NamespaceLimits = Arc<Mutex<HashMap<(usize, String), Arc<Mutex<Limit>>>>>;

/// Encodes records in one format.
#[derive(Debug)]
pub struct RecordEncoder<F> {
    format: F,
    config: Arc<Config>,
    namespaces: NamespaceLimits,
    max_record: usize,
    texts: Texts,
}

// === impl Kept ===

impl Kept {
    /// The container's metadata have changed, or it will not be read for a while.
    pub fn forget(&mut self) {
        self.fragments = [None, None];
    }

    /// The container's metadata for this restart and stream, encoded by `encode` if they are not yet.
    fn fragment(&mut self, restart: u32, stream: Stream, encode: impl FnOnce() -> Fragment) -> &Fragment {
        let kept = &mut self.fragments[stream as usize];
        kept.take_if(|(of, _)| *of != restart);
        &kept.get_or_insert_with(|| (restart, encode())).1
    }

    /// Bytes that a record has beside its text.
    pub fn overhead(&self) -> usize {
        self.fragments.iter().flatten().map(|(_, fragment)| fragment.len()).max().unwrap_or(1024) + 64
    }
}

// === impl Limit ===

impl Limit {
    /// Whether a record of this time is within `rate` records a second, and bursts of two seconds.
    fn admits(&mut self, time: Time, rate: u64) -> bool {
        if self.seconds.is_empty() {
            self.seconds = vec![(i64::MIN, 0); SECONDS];
        }
        let index = |second: i64| usize::try_from(second.rem_euclid(SECONDS as i64)).unwrap_or(0);
        if self.seconds[index(time.seconds)].0 != time.seconds {
            let (before, left) = self.seconds[index(time.seconds - 1)];
            let carried = if before == time.seconds - 1 { left.min(rate) } else { rate };
            self.seconds[index(time.seconds)] = (time.seconds, rate.saturating_add(carried));
        }
        let (_, left) = &mut self.seconds[index(time.seconds)];
        let admitted = *left > 0;
        *left = left.saturating_sub(1);
        admitted
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
            max_record: usize::try_from(config.logs.max_record).unwrap_or(usize::MAX),
            texts: Texts::default(),
        }
    }

    /// Adds the record to the lane's open chunk, or counts why not.
    pub fn encode(
        &mut self,
        lane: &mut Lane,
        generation: &Arc<Generation>,
        settings: &Settings,
        kept: &mut Kept,
        mut record: Record<'_>,
        metrics: &LogMetrics,
    ) {
        if !record.raw
            && let Some(reason) = self.refuses(lane.output, settings, kept, &record)
        {
            lane.drop_bytes(generation, reason, 1, record.source);
            return;
        }
        let RecordEncoder { format, config, texts, max_record, .. } = self;
        let restart = generation.restart;
        let fragment = kept.fragment(restart, record.stream, || {
            let path = generation.container();
            format.fragment(|sink| metadata(sink, config, path, settings, restart, record.stream))
        });
        let Text { text, cut, was_invalid } = texts.of(record.content, &settings.redactors, *max_record);
        if was_invalid {
            metrics.parse_failures.utf8.inc();
        }
        record.truncated |= cut > 0;
        let content = Content { config, settings, fragment, record, text };
        let level = content.write(format, &mut lane.buffer, metrics);
        texts.trim(*max_record);
        if let Some(events) = &settings.events {
            let ((generation, start), stream) = (record.origin, (!record.raw).then_some(record.stream));
            if generation.count_event(stream, start) {
                events.count(level, record.content);
            }
        }
        if !record.raw && settings.drop.iter().any(|rule| rule.drops(record.content, level)) {
            lane.rollback();
            lane.drop_bytes(generation, DropReason::Filter, 1, record.source);
            return;
        }
        // As many source bytes as the text had too many: which they were, replacements do not tell.
        let cut = record.source.min(cut as u64);
        lane.add_record(generation, record.source - cut);
        if cut > 0 {
            lane.drop_bytes(generation, DropReason::Truncated, 0, cut);
        }
    }

    fn refuses(
        &self,
        output: usize,
        settings: &Settings,
        kept: &mut Kept,
        record: &Record<'_>,
    ) -> Option<DropReason> {
        if let Some(share) = settings.sample {
            let (generation, start) = record.origin;
            let identity = generation.identity().map_or(0, |identity| identity.hash());
            if mix(identity ^ mix(start)) >= share {
                return Some(DropReason::Sample);
            }
        }
        if settings.rate > 0 && !kept.limit.admits(record.time, settings.rate) {
            return Some(DropReason::Rate);
        }
        let rate = self.config.logs.rate.namespace;
        if rate > 0 {
            let limit = kept.namespace_limit.get_or_insert_with(|| {
                let namespace = record.origin.0.container().namespace.clone();
                let mut limits = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
                limits.entry((output, namespace)).or_default().clone()
            });
            if !limit.lock().unwrap_or_else(PoisonError::into_inner).admits(record.time, rate) {
                return Some(DropReason::Rate);
            }
        }
        None
    }
}

/// What one record is made of.
struct Content<'a> {
    config: &'a Config,
    settings: &'a Settings,
    fragment: &'a Fragment,
    record: Record<'a>,
    text: &'a str,
}

// === impl Content ===

impl Content<'_> {
    /// Encodes the record behind what the buffer holds; gives its level, if its text says one.
    fn write<F: Format>(&self, format: &mut F, buffer: &mut Vec<u8>, metrics: &LogMetrics) -> Option<Level> {
        #[cfg(test)]
        assert!(
            !(self.text.contains(PANICS) || (!self.record.raw && self.text.contains(PANICS_WHEN_PARSED))),
            "asked for by a test"
        );
        let start = buffer.len();
        if !self.record.raw && self.settings.parse != Parse::None {
            match self.write_parsed(format, buffer) {
                Outcome::Parsed(level) => return level,
                Outcome::Plain => {}
                Outcome::Invalid => metrics.parse_failures.format.inc(),
            }
            buffer.truncate(start);
        }
        let mut sink = format.begin(buffer, self.record.time, self.fragment);
        sink.key("log");
        sink.str(self.text);
        self.remarks(&mut sink);
        F::end(sink);
        None
    }

    /// Encodes the record with its text's fields. When the text has none, what was written is for the caller to take
    /// back.
    fn write_parsed<F: Format>(&self, format: &mut F, buffer: &mut Vec<u8>) -> Outcome {
        let logs = &self.config.logs;
        let into = logs.parse_into.as_str();
        let mut sink = format.begin(buffer, self.record.time, self.fragment);
        if !into.is_empty() {
            sink.key(into);
            sink.map_begin();
        }
        let taken: &[String] = if into.is_empty() { &logs.taken_keys } else { &[] };
        let outcome = parse(self.settings.parse, self.text, taken, &mut sink);
        if !matches!(outcome, Outcome::Parsed(_)) {
            return outcome;
        }
        if !into.is_empty() {
            sink.map_end();
        }
        if logs.keep_log {
            sink.key("log");
            sink.str(self.text);
        }
        self.remarks(&mut sink);
        F::end(sink);
        outcome
    }

    /// What is to say about this one record, if anything.
    fn remarks(&self, sink: &mut impl ValueSink) {
        let file = &self.record.origin.0.container().file;
        if !self.settings.partial_metadata && !self.record.truncated && file.is_none() {
            return;
        }
        sink.key("sidelight");
        sink.map_begin();
        if let Some(file) = file {
            sink.key("file");
            sink.str(file);
        }
        if self.settings.partial_metadata {
            sink.key("metadata");
            sink.str("partial");
        }
        if self.record.truncated {
            sink.key("truncated");
            sink.bool(true);
        }
        sink.map_end();
    }
}

/// A good hash of one number (the finaliser of SplitMix64).
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
