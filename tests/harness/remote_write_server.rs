//! A strict receiver of remote write 1.0: it checks every request, keeps every sample, and can be unkind.
//!
//! Source: the specification of Prometheus remote write 1.0.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use crate::http::{Answer, Request, serve};

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
    series: Mutex<BTreeMap<SeriesText, Vec<Sample>>>,
    answers: Mutex<VecDeque<Answer>>,
    /// Samples of each request, whatever was answered.
    requests: Mutex<Vec<usize>>,
    violations: Mutex<Vec<String>>,
    /// Of the newest request.
    headers: Mutex<BTreeMap<String, String>>,
}

/// A sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// The value; none where the series has ended.
    pub value: Option<f64>,
}

// === impl RemoteWriteServer ===

impl RemoteWriteServer {
    /// Takes everything.
    pub fn start() -> Self {
        let shared = Arc::<Shared>::default();
        let serving = shared.clone();
        RemoteWriteServer { address: serve(move |request| serving.answer(request)), shared }
    }

    /// Where it takes requests.
    pub fn url(&self) -> String {
        format!("http://{}/api/v1/write", self.address)
    }

    /// The next requests get these answers, and are forgotten.
    pub fn refuse(&self, answers: impl IntoIterator<Item = Answer>) {
        self.shared.answers.lock().unwrap().extend(answers);
    }

    /// How many requests came.
    pub fn requests(&self) -> usize {
        self.shared.requests.lock().unwrap().len()
    }

    /// A header of the newest request; its name in lower case.
    pub fn header(&self, name: &str) -> Option<String> {
        self.shared.headers.lock().unwrap().get(name).cloned()
    }

    /// The samples of a series that it has taken.
    pub fn samples(&self, series: &str) -> Vec<Sample> {
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
        let series = match decode(request) {
            Ok(series) => series,
            Err(violation) => {
                self.violations.lock().unwrap().push(violation);
                return Answer::status(400);
            }
        };
        self.headers.lock().unwrap().clone_from(&request.headers);
        self.requests.lock().unwrap().push(series.len());
        if let Some(answer) = self.answers.lock().unwrap().pop_front() {
            return answer;
        }
        let mut known = self.series.lock().unwrap();
        for (text, sample) in series {
            let samples = known.entry(text.clone()).or_default();
            if samples.last().is_some_and(|newest| newest.timestamp >= sample.timestamp) {
                self.violations
                    .lock()
                    .unwrap()
                    .push(format!("{text}: a sample is not newer than the one before"));
            }
            samples.push(sample);
        }
        Answer::status(204)
    }
}

/// The samples of a request, each with its series.
fn decode(request: &Request) -> Result<Vec<(SeriesText, Sample)>, String> {
    for (name, value) in [
        ("content-type", "application/x-protobuf"),
        ("content-encoding", "snappy"),
        ("x-prometheus-remote-write-version", "0.1.0"),
    ] {
        if request.headers.get(name).map(String::as_str) != Some(value) {
            return Err(format!("{name} is {:?} and not {value:?}", request.headers.get(name)));
        }
    }
    if request.method != "POST" || !request.headers.contains_key("user-agent") {
        return Err("not a POST with a user agent".to_owned());
    }
    let bytes = snap::raw::Decoder::new().decompress_vec(&request.body).map_err(|error| error.to_string())?;
    let mut samples = Vec::new();
    for (field, series) in fields(&bytes)? {
        if field != 1 {
            return Err(format!("field {field} of a write request"));
        }
        samples.extend(time_series(series.message()?)?);
    }
    Ok(samples)
}

fn time_series(bytes: &[u8]) -> Result<Vec<(SeriesText, Sample)>, String> {
    let (mut labels, mut samples) = (Vec::new(), Vec::new());
    for (field, value) in fields(bytes)? {
        let parts = fields(value.message()?)?;
        match (field, parts.as_slice()) {
            (1, [(1, name), (2, value)]) => labels.push((name.text()?, value.text()?)),
            (2, [(1, value), (2, timestamp)]) => {
                let bits = value.number()?;
                samples.push(Sample {
                    timestamp: timestamp.number()?.cast_signed(),
                    value: (bits != STALE).then(|| f64::from_bits(bits)),
                });
            }
            _ => return Err(format!("field {field} of a time series: {parts:?}")),
        }
    }
    if labels.windows(2).any(|pair| pair[0].0 >= pair[1].0)
        || labels.iter().any(|(_, value)| value.is_empty())
    {
        return Err(format!("labels are not sorted, stand twice, or are empty: {labels:?}"));
    }
    let name = labels.iter().find(|(name, _)| name == "__name__").ok_or("a series without a name")?.1.clone();
    let others = labels.iter().filter(|(name, _)| name != "__name__");
    let others: Vec<String> = others.map(|(name, value)| format!("{name}={value:?}")).collect();
    let text = format!("{name}{{{}}}", others.join(","));
    Ok(samples.into_iter().map(|sample| (text.clone(), sample)).collect())
}

/// The value of a field.
#[derive(Debug)]
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl Field<'_> {
    fn number(&self) -> Result<u64, String> {
        match self {
            Field::Number(number) => Ok(*number),
            Field::Bytes(_) => Err("a number is expected".to_owned()),
        }
    }

    fn message(&self) -> Result<&[u8], String> {
        match self {
            Field::Bytes(bytes) => Ok(bytes),
            Field::Number(_) => Err("a message is expected".to_owned()),
        }
    }

    fn text(&self) -> Result<String, String> {
        String::from_utf8(self.message()?.to_vec()).map_err(|error| error.to_string())
    }
}

/// How many samples a request's body has.
///
/// # Errors
/// What is wrong with it.
pub fn samples_in(body: &[u8]) -> Result<u64, String> {
    let bytes = snap::raw::Decoder::new().decompress_vec(body).map_err(|error| error.to_string())?;
    let mut samples = 0;
    for (_, series) in fields(&bytes)?.into_iter().filter(|(field, _)| *field == 1) {
        samples += fields(series.message()?)?.iter().filter(|(field, _)| *field == 2).count() as u64;
    }
    Ok(samples)
}

/// The fields of a message of Protocol Buffers.
fn fields(mut bytes: &[u8]) -> Result<Vec<(u64, Field<'_>)>, String> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Field::Number(varint(&mut bytes)?),
            1 => Field::Number(u64::from_le_bytes(take(&mut bytes, 8)?.try_into().unwrap())),
            2 => {
                let length = varint(&mut bytes)?;
                Field::Bytes(take(&mut bytes, length as usize)?)
            }
            other => return Err(format!("wire type {other}")),
        };
        fields.push((key >> 3, value));
    }
    Ok(fields)
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err("a number without an end".to_owned())
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], String> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or("the message ends too early")?;
    *bytes = rest;
    Ok(taken)
}
