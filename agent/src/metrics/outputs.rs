//! Where samples go: for each output the request that is being filled, and the queue behind it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::cluster::Pod;
use crate::config::{self, Match};
use crate::delivery::remote_write::{self, Queue};
use crate::metrics::write_request::WriteRequest;

/// A request is sent when it has so many samples, and a scrape goes whole into one if it has no more: receivers say what
/// is wrong by request, and most take 10,000 at once.
const MAX_SAMPLES: usize = 10_000;

/// One output.
#[derive(Debug)]
pub struct Output {
    matching: Match,
    /// A request waits no longer than this for more samples.
    pub flush_interval: Duration,
    open: Mutex<WriteRequest>,
    queue: Arc<Queue>,
}

// === impl Output ===

impl Output {
    /// An output with nothing in it.
    pub fn new(config: &config::MetricOutput, queue: Arc<Queue>) -> Self {
        Output {
            matching: config.matching.clone(),
            flush_interval: config.remote_write.flush_interval,
            open: Mutex::default(),
            queue,
        }
    }

    /// Whether it gets the samples of a pod.
    pub fn takes(&self, pod: &Pod) -> bool {
        self.matching.namespaces.matches(&pod.namespace) && self.matching.labels.matches(&pod.labels)
    }

    /// Adds the samples of one scrape, `count` of them: encoded labels, value, and milliseconds since the epoch.
    pub fn add<'a>(&self, count: usize, samples: impl Iterator<Item = (&'a [u8], f64, i64)>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.samples() + count > MAX_SAMPLES {
            self.send(&mut open);
        }
        for (labels, value, timestamp) in samples {
            if open.samples() == MAX_SAMPLES {
                self.send(&mut open);
            }
            open.add(labels, value, timestamp);
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

    fn send(&self, request: &mut WriteRequest) {
        if request.samples() == 0 {
            return;
        }
        match snap::raw::Encoder::new().compress_vec(request.bytes()) {
            Ok(body) => {
                let samples = request.samples() as u64;
                self.queue.push(remote_write::WriteRequest { body: body.into(), samples });
            }
            // Only of what is longer than 4 GiB.
            Err(error) => {
                tracing::error!(%error, samples = request.samples(), "a request cannot be compressed")
            }
        }
        request.clear();
    }
}
