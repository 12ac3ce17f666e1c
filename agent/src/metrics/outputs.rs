//! Where samples go: for each output the request that is being filled, and the queue behind it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;

use crate::cluster::Pod;
use crate::config::{self, Match};
use crate::delivery::remote_write::{Pipeline, Protocol, Queue, Version};
use crate::metrics::symbols::Symbols;
use crate::metrics::write_request::{Sample, WriteRequest};

/// A request is sent when it has so many samples, and a scrape goes whole into one if it has no more: receivers say what
/// is wrong by request, and most take 10,000 at once.
const MAX_SAMPLES: usize = 10_000;
/// And when it has so many bytes, before compression: Prometheus takes 32 MiB.
const MAX_BYTES: usize = 4 << 20;

/// One output.
#[derive(Debug)]
pub struct Output {
    matching: Match,
    /// It has rules of its own for labels.
    pub has_rules: bool,
    /// A request waits no longer than this for more samples.
    pub flush_interval: Duration,
    open: Mutex<Open>,
    queue: Arc<Queue>,
    pipeline: Pipeline,
    protocol: Arc<Protocol>,
    symbols: Symbols,
}

/// The request that is being filled.
#[derive(Debug)]
struct Open {
    request: WriteRequest,
    /// For compression.
    scratch: Vec<u8>,
}

// === impl Output ===

impl Output {
    /// An output with nothing in it.
    pub fn new(
        config: &config::MetricOutput,
        (queue, pipeline): (Arc<Queue>, Pipeline),
        protocol: Arc<Protocol>,
        symbols: Symbols,
    ) -> Self {
        let request = WriteRequest::new(protocol.version());
        Output {
            matching: config.matching.clone(),
            has_rules: !config.remote_write.relabel.is_empty(),
            flush_interval: config.remote_write.flush_interval,
            open: Mutex::new(Open { request, scratch: Vec::new() }),
            queue,
            pipeline,
            protocol,
            symbols,
        }
    }

    /// Whether it gets the samples of a pod.
    pub fn takes(&self, pod: &Pod) -> bool {
        self.matching.takes(&pod.namespace, &pod.labels)
    }

    /// Adds the samples of one scrape, at most `count`. Where the page has times of its own, the scrape has its requests for
    /// itself: a receiver that finds one of them too old rejects the whole request.
    pub fn add<'a>(&self, count: usize, alone: bool, samples: impl Iterator<Item = Sample<'a>>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if alone || open.request.samples() + count > MAX_SAMPLES {
            self.send(&mut open);
        }
        let (table, mut unsupported) = (self.symbols.lock(), 0);
        for sample in samples {
            if open.request.samples() == MAX_SAMPLES || open.request.bytes() >= MAX_BYTES {
                self.send(&mut open);
            }
            unsupported += u64::from(!open.request.add(&sample, &table));
        }
        drop(table);
        self.queue.lost().unsupported.inc_by(unsupported);
        if alone {
            self.send(&mut open);
        }
    }

    /// Whether its receiver takes native histograms, as far as is known.
    pub fn takes_histograms(&self) -> bool {
        self.protocol.version() == Version::V2
    }

    /// Sends what there is.
    pub fn flush(&self) {
        self.send(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Nothing more will come.
    pub fn close(&self) {
        self.flush();
        self.queue.close(self.pipeline);
    }

    fn send(&self, Open { request, scratch }: &mut Open) {
        if request.samples() == 0 {
            return;
        }
        let (samples, version) = (request.samples(), request.version());
        let bytes = request.finish();
        scratch.resize(snap::raw::max_compress_len(bytes.len()), 0);
        match snap::raw::Encoder::new().compress(bytes, scratch) {
            // Copied, so that what waits takes no more memory than it is long.
            Ok(length) => {
                self.queue.push(Bytes::copy_from_slice(&scratch[..length]), version, samples as u64);
            }
            // Only of what is longer than 4 GiB.
            Err(error) => {
                tracing::error!(%error, samples, "a request cannot be compressed");
                self.queue.lost().queue_full.inc_by(samples as u64);
            }
        }
        request.clear();
        if self.protocol.version() != version {
            *request = WriteRequest::new(self.protocol.version());
        }
    }
}
