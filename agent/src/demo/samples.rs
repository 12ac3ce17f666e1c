//! A receiver of remote write that counts samples and remembers the newest of each series.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use super::loopback::listen;
use super::node::LINES_WRITTEN;
use crate::delivery::protobuf::{Field, Malformed, fields};
use crate::delivery::remote_write::downgrade;

/// Name and labels.
pub(super) type Labels = BTreeMap<String, String>;

/// What has arrived.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples {
    /// In all.
    pub(super) count: u64,
    /// The newest value of each series.
    pub(super) newest: BTreeMap<Labels, f64>,
}

/// The running receiver.
pub(super) struct SampleReceiver {
    address: SocketAddr,
    samples: Arc<Mutex<Samples>>,
}

// === impl SampleReceiver ===

impl SampleReceiver {
    /// Listens on a free port of the loopback interface.
    pub(super) fn start() -> io::Result<Self> {
        let samples = Arc::<Mutex<Samples>>::default();
        let taken = samples.clone();
        let address = listen("samples", move |stream| serve(stream, &taken))?;
        Ok(SampleReceiver { address, samples })
    }

    /// Where it takes requests.
    pub(super) fn url(&self) -> String {
        format!("http://{}/api/v1/write", self.address)
    }

    /// What has arrived so far.
    pub(super) fn samples(&self) -> Samples {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

// === impl Samples ===

impl Samples {
    /// The lines that the pod of `owner` has written, by its newest sample.
    pub(super) fn counted(&self, owner: &str) -> Option<f64> {
        let is_it = |labels: &Labels| {
            labels.get("__name__").is_some_and(|name| name == LINES_WRITTEN)
                && labels.get("job").is_some_and(|job| job.rsplit('/').next() == Some(owner))
        };
        self.newest.iter().find(|(labels, _)| is_it(labels)).map(|(_, value)| *value)
    }

    /// Whether the newest sample of each pod is as many lines as it has written.
    pub(super) fn have_counted(&self, expected: &BTreeMap<String, u64>) -> bool {
        expected.iter().all(|(owner, lines)| self.counted(owner) == Some(*lines as f64))
    }
}

/// Requests of HTTP/1.1, one after the other: every one is taken.
fn serve(stream: &TcpStream, samples: &Mutex<Samples>) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        let mut body = Vec::new();
        reader.by_ref().take(length).read_to_end(&mut body)?;
        let bytes = snap::raw::Decoder::new().decompress_vec(&body).map_err(io::Error::other)?;
        let written = downgrade(&bytes).and_then(|(request, _)| take(&request, samples));
        let written = written.map_err(|Malformed| io::Error::other("not a write request"))?;
        write!(
            &*stream,
            "HTTP/1.1 204 No Content\r\nX-Prometheus-Remote-Write-Samples-Written: {written}\r\n\r\n"
        )?;
    }
}

/// Takes what there is and gives how many samples that was; fields of `WriteRequest`, `TimeSeries`, `Label` and `Sample`
/// (`prompb/types.proto` of Prometheus).
fn take(request: &[u8], samples: &Mutex<Samples>) -> Result<u64, Malformed> {
    let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
    let before = samples.count;
    for series in fields(request) {
        let (1, Field::Bytes(series)) = series? else { continue };
        let mut labels = Labels::new();
        for field in fields(series) {
            match field? {
                (1, Field::Bytes(label)) => {
                    let (name, value) = pair(label)?;
                    labels.insert(name, value);
                }
                (2, Field::Bytes(sample)) => {
                    if let Some(Ok((_, Field::Fixed64(bits)))) = fields(sample).next() {
                        samples.count += 1;
                        samples.newest.insert(labels.clone(), f64::from_bits(bits));
                    }
                }
                _ => {}
            }
        }
    }
    Ok(samples.count - before)
}

fn pair(label: &[u8]) -> Result<(String, String), Malformed> {
    let mut texts = [String::new(), String::new()];
    for field in fields(label) {
        if let (number @ 1..=2, Field::Bytes(text)) = field? {
            texts[number as usize - 1] = String::from_utf8_lossy(text).into_owned();
        }
    }
    let [name, value] = texts;
    Ok((name, value))
}
