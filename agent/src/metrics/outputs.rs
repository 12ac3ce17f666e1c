//! Where samples go: for each output the request that is being filled, and the queue behind it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;

use crate::cluster::Pod;
use crate::config::{self, Match};
use crate::delivery::remote_write::Queue;
use crate::metrics::write_request::WriteRequest;

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
}

/// The request that is being filled.
#[derive(Debug, Default)]
struct Open {
    request: WriteRequest,
    /// For compression.
    scratch: Vec<u8>,
}

// === impl Output ===

impl Output {
    /// An output with nothing in it.
    pub fn new(config: &config::MetricOutput, queue: Arc<Queue>) -> Self {
        Output {
            matching: config.matching.clone(),
            has_rules: !config.remote_write.relabel.is_empty(),
            flush_interval: config.remote_write.flush_interval,
            open: Mutex::default(),
            queue,
        }
    }

    /// Whether it gets the samples of a pod.
    pub fn takes(&self, pod: &Pod) -> bool {
        self.matching.takes(&pod.namespace, &pod.labels)
    }

    /// Adds the samples of one scrape, at most `count`: encoded labels, value, and milliseconds since the epoch. Where the
    /// page has times of its own, the scrape has its requests for itself: a receiver that finds one of them too old rejects
    /// the whole request.
    pub fn add<'a>(&self, count: usize, alone: bool, samples: impl Iterator<Item = (&'a [u8], f64, i64)>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if alone || open.request.samples() + count > MAX_SAMPLES {
            self.send(&mut open);
        }
        for (labels, value, timestamp) in samples {
            if open.request.samples() == MAX_SAMPLES || open.request.bytes().len() >= MAX_BYTES {
                self.send(&mut open);
            }
            open.request.add(labels, value, timestamp);
        }
        if alone {
            self.send(&mut open);
        }
    }

    /// Sends what there is.
    pub fn flush(&self) {
        self.send(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Nothing more will come.
    pub fn close(&self) {
        self.flush();
        self.queue.close();
    }

    fn send(&self, Open { request, scratch }: &mut Open) {
        if request.samples() == 0 {
            return;
        }
        scratch.resize(snap::raw::max_compress_len(request.bytes().len()), 0);
        match snap::raw::Encoder::new().compress(request.bytes(), scratch) {
            // Copied, so that what waits takes no more memory than it is long.
            Ok(length) => {
                self.queue.push(Bytes::copy_from_slice(&scratch[..length]), request.samples() as u64)
            }
            // Only of what is longer than 4 GiB.
            Err(error) => {
                tracing::error!(%error, samples = request.samples(), "a request cannot be compressed")
            }
        }
        request.clear();
    }
}
