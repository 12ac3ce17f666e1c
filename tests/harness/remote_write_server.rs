//! A strict receiver of remote write 1.0 and 2.0: it checks every request, keeps every sample, and can be unkind.
//!
//! Source: the specifications of Prometheus remote write.

mod protobuf;
mod v1;
mod v2;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::http::{Answer, Request, serve};
use protobuf::fields;

/// What says that a series has ended.
const STALE: u64 = 0x7ff0_0000_0000_0002;

/// Name and labels as Prometheus prints them: `name{label="value",…}`, sorted.
pub type SeriesText = String;

/// The server.
pub struct RemoteWriteServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    series: Mutex<BTreeMap<SeriesText, Series>>,
    away: AtomicBool,
    answers: Mutex<VecDeque<Answer>>,
    /// Samples of each request, whatever was answered.
    requests: Mutex<Vec<usize>>,
    violations: Mutex<Vec<String>>,
    /// Of the newest request.
    headers: Mutex<BTreeMap<String, String>>,
}

/// A sample. Times are milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// When it was taken.
    pub timestamp: i64,
    /// The value; none where the series has ended.
    pub value: Option<f64>,
    /// When the counter began.
    pub start: Option<i64>,
}

/// An exemplar.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// Names and values.
    pub labels: Vec<(String, String)>,
    /// The value.
    pub value: f64,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
}

/// What a request of 2.0 says of a series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// `Metadata.MetricType`: 1 is a counter, 2 a gauge, 3 a histogram.
    pub kind: u64,
    /// The help.
    pub help: String,
    /// The unit.
    pub unit: String,
}

/// A series, as it came with requests.
#[derive(Clone, Debug, Default)]
struct Series {
    text: SeriesText,
    samples: Vec<Sample>,
    exemplars: Vec<Exemplar>,
    histograms: Vec<Histogram>,
    metadata: Metadata,
}

/// A native histogram, as far as tests look at it.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// Observations.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// Observations in positive buckets, each less the one before.
    pub positive_deltas: Vec<i64>,
}

// === impl RemoteWriteServer ===

impl RemoteWriteServer {
    /// Takes everything.
    pub fn start() -> Self {
        let shared = Arc::<Shared>::default();
        let serving = shared.clone();
        RemoteWriteServer { address: serve(move |request| serving.answer(request)), shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it takes requests.
    pub fn url(&self) -> String {
        format!("http://{}/api/v1/write", self.address)
    }

    /// The next requests get these answers, and are forgotten.
    pub fn refuse(&self, answers: impl IntoIterator<Item = Answer>) {
        self.shared.answers.lock().unwrap().extend(answers);
    }

    /// Answers every request with 503 from now on, or no longer.
    pub fn be_away(&self, away: bool) {
        self.shared.away.store(away, Ordering::SeqCst);
    }

    /// How many requests came.
    pub fn requests(&self) -> usize {
        self.shared.requests.lock().unwrap().len()
    }

    /// Samples of the request that had most, whatever was answered.
    pub fn largest_request(&self) -> usize {
        self.shared.requests.lock().unwrap().iter().copied().max().unwrap_or(0)
    }

    /// A header of the newest request; its name in lower case.
    pub fn header(&self, name: &str) -> Option<String> {
        self.shared.headers.lock().unwrap().get(name).cloned()
    }

    /// The samples of a series that it has taken.
    pub fn samples(&self, series: &str) -> Vec<Sample> {
        self.series(series).samples
    }

    /// The newest exemplar of a series.
    pub fn exemplar(&self, series: &str) -> Option<Exemplar> {
        self.series(series).exemplars.pop()
    }

    /// The newest native histogram of a series.
    pub fn histogram(&self, series: &str) -> Option<Histogram> {
        self.series(series).histograms.pop()
    }

    /// What was said of a series last.
    pub fn metadata(&self, series: &str) -> Metadata {
        self.series(series).metadata
    }

    fn series(&self, series: &str) -> Series {
        self.shared.series.lock().unwrap().get(series).cloned().unwrap_or_default()
    }

    /// The newest value of a series: none if there is none, or it has ended.
    pub fn value(&self, series: &str) -> Option<f64> {
        self.samples(series).last().and_then(|sample| sample.value)
    }

    /// Every series with this name.
    pub fn named(&self, name: &str) -> Vec<SeriesText> {
        let series = self.shared.series.lock().unwrap();
        series.keys().filter(|text| text.split('{').next() == Some(name)).cloned().collect()
    }

    /// Checks that no request was wrong.
    pub fn assert_clean(&self) {
        let violations = self.shared.violations.lock().unwrap();
        assert!(violations.is_empty(), "{violations:?}");
    }
}

impl Drop for RemoteWriteServer {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_clean();
        }
    }
}

// === impl Shared ===

impl Shared {
    fn answer(&self, request: &Request) -> Answer {
        if self.away.load(Ordering::SeqCst) {
            return Answer::status(503);
        }
        let series = match decode(request) {
            Ok(series) => series,
            Err(violation) => {
                self.violations.lock().unwrap().push(violation.clone());
                return Answer { body: violation.into_bytes(), ..Answer::status(400) };
            }
        };
        self.headers.lock().unwrap().clone_from(&request.headers);
        let samples = series.iter().map(|series| series.samples.len()).sum();
        self.requests.lock().unwrap().push(samples);
        if let Some(answer) = self.answers.lock().unwrap().pop_front() {
            return answer;
        }
        let exemplars: usize = series.iter().map(|series| series.exemplars.len()).sum();
        let histograms: usize = series.iter().map(|series| series.histograms.len()).sum();
        series.into_iter().for_each(|series| self.keep(series));
        written(request, samples, histograms, exemplars)
    }

    fn keep(&self, new: Series) {
        let mut all = self.series.lock().unwrap();
        let known =
            all.entry(new.text.clone()).or_insert_with(|| Series { samples: Vec::new(), ..new.clone() });
        for sample in new.samples {
            if known.samples.last().is_some_and(|newest| newest.timestamp >= sample.timestamp) {
                let violation = format!("{}: a sample is not newer than the one before", new.text);
                self.violations.lock().unwrap().push(violation);
            }
            known.samples.push(sample);
        }
        known.exemplars.extend(new.exemplars);
        known.histograms.extend(new.histograms);
        known.metadata = new.metadata;
    }
}

/// The version of 2.0 in its header.
const NEWER: &str = "2.0.0";

/// The answer to a request of which all was taken: one of 2.0 is told how much that was.
pub fn written(request: &Request, samples: usize, histograms: usize, exemplars: usize) -> Answer {
    let names = [
        "X-Prometheus-Remote-Write-Samples-Written",
        "X-Prometheus-Remote-Write-Histograms-Written",
        "X-Prometheus-Remote-Write-Exemplars-Written",
    ];
    let is_newer = header(request, "x-prometheus-remote-write-version") == Some(NEWER);
    let headers = names.into_iter().zip([samples, histograms, exemplars]).filter(|_| is_newer);
    Answer {
        headers: headers.map(|(name, count)| (name, count.to_string())).collect(),
        ..Answer::status(204)
    }
}

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.headers.get(name).map(String::as_str)
}

/// The series of a request.
fn decode(request: &Request) -> Result<Vec<Series>, String> {
    let older = ("application/x-protobuf", "0.1.0");
    let newer = ("application/x-protobuf;proto=io.prometheus.write.v2.Request", NEWER);
    let said = header(request, "content-type").zip(header(request, "x-prometheus-remote-write-version"));
    let decode = match said {
        Some(said) if said == older => v1::decode,
        Some(said) if said == newer => v2::decode,
        other => return Err(format!("type and version are {other:?}")),
    };
    if header(request, "content-encoding") != Some("snappy") {
        return Err("it is not compressed by snappy".to_owned());
    }
    if request.method != "POST" || !request.headers.contains_key("user-agent") {
        return Err("not a POST with a user agent".to_owned());
    }
    let bytes = snap::raw::Decoder::new().decompress_vec(&request.body).map_err(|error| error.to_string())?;
    decode(&bytes)
}

/// Labels as Prometheus prints them.
fn series_text(labels: &[(String, String)]) -> Result<SeriesText, String> {
    if labels.windows(2).any(|pair| pair[0].0 >= pair[1].0)
        || labels.iter().any(|(name, value)| name.is_empty() || value.is_empty())
    {
        return Err(format!("labels are not sorted, stand twice, or are empty: {labels:?}"));
    }
    let name = labels.iter().find(|(name, _)| name == "__name__").ok_or("a series without a name")?.1.clone();
    let others = labels.iter().filter(|(name, _)| name != "__name__");
    let others: Vec<String> = others.map(|(name, value)| format!("{name}={value:?}")).collect();
    Ok(format!("{name}{{{}}}", others.join(",")))
}

/// How many samples a request's body has.
///
/// # Errors
/// What is wrong with it.
pub fn samples_in(body: &[u8]) -> Result<u64, String> {
    let bytes = snap::raw::Decoder::new().decompress_vec(body).map_err(|error| error.to_string())?;
    let mut samples = 0;
    // Time series have field 1 in version 1.0, and field 5 in 2.0.
    for (_, series) in fields(&bytes)?.into_iter().filter(|(field, _)| matches!(field, 1 | 5)) {
        samples += fields(series.message()?)?.iter().filter(|(field, _)| *field == 2).count() as u64;
    }
    Ok(samples)
}
