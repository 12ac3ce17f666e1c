//! `files` and `outputs`: the shapes of the contract.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::admin::page::bytes_text;
use crate::admin::{SampleOutputView, View};
use crate::delivery::remote_write::DropReason;
use crate::logs::container::Container;
use crate::logs::generation::Generation;

/// The kind of an output of samples.
const REMOTE_WRITE: &str = "remote_write";

/// `/api/v1/files`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Files {
    /// All generations of all containers.
    pub files: Vec<FileStatus>,
}

/// One generation.
#[derive(Debug, Serialize, Deserialize)]
pub struct FileStatus {
    /// Its path as last seen.
    pub path: String,
    /// Namespace.
    pub namespace: String,
    /// Pod name.
    pub pod: String,
    /// Pod UID as in the path.
    pub uid: String,
    /// Container name.
    pub container: String,
    /// Restart count of the container.
    pub restart: u32,
    /// Identity: a hash of the first line; empty before that is whole.
    pub generation: String,
    /// Uncompressed bytes.
    pub size: u64,
    /// `open`, `deleted` (held open), `closed`.
    pub state: String,
    /// By output name.
    pub outputs: BTreeMap<String, FileOutput>,
}

/// How far an output is in a file.
#[derive(Debug, Serialize, Deserialize)]
pub struct FileOutput {
    /// Bytes read.
    pub read: u64,
    /// Bytes acknowledged.
    pub acked: u64,
    /// Bytes not acknowledged.
    pub lag_bytes: u64,
}

/// `/api/v1/outputs`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outputs {
    /// In the order of the config.
    pub outputs: Vec<OutputStatus>,
}

/// One output.
#[derive(Debug, Serialize, Deserialize)]
pub struct OutputStatus {
    /// Its name.
    pub name: String,
    /// `forward`, `stdout` or `remote_write`.
    pub kind: String,
    /// Whether a receiver takes what is sent.
    pub up: bool,
    /// Delivered: source bytes, or samples of `remote_write`; the next two as well.
    pub delivered: u64,
    /// Dropped, by reason; reasons without any are left out.
    pub dropped: BTreeMap<String, u64>,
    /// Read, neither delivered nor dropped.
    pub in_flight: u64,
    /// Bytes of all files that are not acknowledged, or of the requests that wait.
    pub lag_bytes: u64,
    /// The newest error.
    pub last_error: Option<String>,
}

pub(super) fn files(view: &View) -> Files {
    let file = |container: &Container, generation: &Generation| FileStatus {
        path: generation.path().display().to_string(),
        namespace: container.path.namespace.clone(),
        pod: container.path.pod.clone(),
        uid: container.path.uid.clone(),
        container: container.path.container.clone(),
        restart: generation.restart,
        generation: generation.identity().map(|identity| identity.to_string()).unwrap_or_default(),
        size: generation.size(),
        state: state(generation).to_owned(),
        outputs: view
            .outputs
            .iter()
            .enumerate()
            .filter(|(index, _)| generation.is_taken(*index))
            .map(|(index, output)| {
                let (read, acked) = (generation.read(index), generation.acked(index));
                (output.name.clone(), FileOutput { read, acked, lag_bytes: generation.lag(index) })
            })
            .collect(),
    };
    let containers = view.inventory.containers();
    let files = containers.iter().flat_map(|container| {
        let file = &file;
        container.generations().into_iter().map(move |generation| {
            generation.refresh();
            file(container, &generation)
        })
    });
    Files { files: files.collect() }
}

/// `open`, `deleted` or `closed`.
pub(super) fn state(generation: &Generation) -> &'static str {
    match generation.source() {
        Some(source) if source.stat().is_ok_and(|(_, links)| links == 0) => "deleted",
        Some(_) => "open",
        None => "closed",
    }
}

pub(super) fn outputs(view: &View) -> Outputs {
    let lags = lags(view);
    let outputs = view.outputs.iter().zip(lags).map(|(output, lag_bytes)| {
        let account = output.status.account();
        OutputStatus {
            name: output.name.clone(),
            kind: output.kind.to_owned(),
            up: output.status.state.is_up(),
            delivered: account.bytes_delivered(),
            dropped: account
                .bytes_dropped()
                .filter(|(_, bytes)| *bytes > 0)
                .map(|(reason, bytes)| (reason.name().to_owned(), bytes))
                .collect(),
            in_flight: account.bytes_in_flight().unsigned_abs(),
            lag_bytes,
            last_error: output.status.state.last_error(),
        }
    });
    Outputs { outputs: outputs.chain(view.sample_outputs.iter().map(sample_output)).collect() }
}

fn sample_output(output: &SampleOutputView) -> OutputStatus {
    let dropped = |reason: DropReason| {
        let samples = output.metrics.dropped(&output.name, reason).get();
        (samples > 0).then(|| (reason.name().to_owned(), samples))
    };
    OutputStatus {
        name: output.name.clone(),
        kind: REMOTE_WRITE.to_owned(),
        up: output.state.is_up(),
        delivered: output.metrics.delivered(&output.name).get(),
        dropped: DropReason::ALL.into_iter().filter_map(dropped).collect(),
        in_flight: output.queue.samples(),
        lag_bytes: output.queue.bytes(),
        last_error: output.state.last_error(),
    }
}

impl OutputStatus {
    /// An amount in the output's unit, for people.
    pub fn amount(&self, amount: u64) -> String {
        if self.kind == REMOTE_WRITE { format!("{amount} samples") } else { bytes_text(amount) }
    }

    /// What was dropped, for people.
    pub fn dropped_text(&self) -> String {
        let dropped: Vec<String> = self
            .dropped
            .iter()
            .map(|(reason, amount)| format!("{reason} {}", self.amount(*amount)))
            .collect();
        if dropped.is_empty() { "0".to_owned() } else { dropped.join(", ") }
    }
}

/// By output: bytes of all files that its receiver has not acknowledged.
pub(super) fn lags(view: &View) -> Vec<u64> {
    let mut lags = vec![0; view.outputs.len()];
    for generation in view.inventory.containers().iter().flat_map(|container| container.generations()) {
        generation.refresh();
        for (index, lag) in lags.iter_mut().enumerate() {
            *lag += generation.lag(index);
        }
    }
    lags
}
