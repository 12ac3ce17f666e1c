//! A log file on its way through the pass: split, joined, grouped, parsed, encoded, counted and acknowledged.

mod file;
mod model;

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use serde_json::Value;
use sidelight_agent::config::Config;
use sidelight_agent::logs::encode::{Format, Forward, JsonLines};
use sidelight_agent::logs::split::{Stream, Time};
use sidelight_contract::annotations::Parse;

use self::file::{Arrived, Pod, Record};

/// The shortest that the configuration allows.
const MAX_RECORD: usize = 1 << 10;
/// Stands for many bytes, so that a short input has lines longer than a window.
const LONG: u8 = 0xfe;
const LONG_BYTES: usize = 100_000;
const MAX_LONG: usize = 6;
/// Each costs a window that is read.
const MAX_PIECES: usize = 32;

static CONFIGS: LazyLock<Vec<Arc<Config>>> = LazyLock::new(|| {
    let multiline = ["none", "auto", "rust", "java", "python", "go", "'^\\S'", "'^$'"];
    let all = ["none", "auto"].into_iter().flat_map(|parse| multiline.map(|multiline| (parse, multiline)));
    all.map(|(parse, multiline)| Arc::new(config(parse, multiline))).collect()
});

fn config(parse: &str, multiline: &str) -> Config {
    let text = format!(
        "node: n\nworkers: 1\nkubernetes: {{ source: none }}\nlogs:\n  parse: {parse}\n  multiline: {multiline}\n  \
         max_record: 1KiB\n  keep_log: true\n  outputs: [ {{ forward: {{ upstreams: ['h:1'] }} }} ]"
    );
    Config::parse(&text, &|_| None).expect("a valid configuration")
}

/// What a record says of the lines that it was made of.
#[derive(Debug, PartialEq)]
struct Seen {
    time: Time,
    stream: Stream,
    text: String,
    truncated: bool,
}

/// The first two bytes choose the settings and the pieces in which the file grows, the others are the file.
///
/// However it grows and wherever its chunks end, over however many files it goes, wherever the agent begins anew and whatever
/// was acknowledged by then, its records are the same, those of a model that keeps bytes where the agent
/// keeps ranges; both encodings say the same; and every byte is counted twice, as read and as delivered or dropped.
pub fn records(data: &[u8]) {
    let [choice, piece, rest @ ..] = data else { return };
    let config = &CONFIGS[usize::from(*choice) % CONFIGS.len()];
    let pieces = long_lines(rest, usize::from(*piece).max(rest.len() / MAX_PIECES) + 1);
    let whole = pieces.concat();
    let mut encoded = read([whole.as_slice()], Pod::new(config, Forward::default(), 1 << 20)).unpacked();
    let in_pieces =
        read(pieces.iter().map(Vec::as_slice), Pod::new(config, Forward::default(), 2 << 10)).unpacked();
    assert_eq!(encoded, in_pieces, "a file that grows in {} pieces", pieces.len());
    let size = pieces.first().map_or(0, Vec::len);
    let restarted = read_files(&whole, size, Pod::new(config, Forward::default(), 2 << 10)).unpacked();
    assert_eq!(texts(&encoded), texts(&restarted), "several files, and a restart behind each");
    let losing = Pod::new(config, Forward::default(), 2 << 10).losing(crc32fast::hash(data).into());
    let losing = read_files(&whole, size, losing).unpacked();
    assert_eq!(set(&encoded), set(&losing), "the same, and chunks or their acknowledgements get lost");
    let mut printed = read(pieces.iter().map(Vec::as_slice), Pod::new(config, JsonLines, 2 << 10)).printed();
    // The one record whose time is printed and not packed.
    let times: Vec<_> =
        printed.iter_mut().filter_map(|record| record.as_object_mut()?.remove("time")).collect();
    assert_eq!(times.len(), encoded.len());
    if config.logs.parse != Parse::None {
        encoded.iter_mut().for_each(|record| record.time = Time::default());
        let fields: Vec<_> = encoded.into_iter().map(|record| record.fields).collect();
        return assert!(crate::json::are_equal(&fields.into(), &printed.into()), "the two encodings differ");
    }
    let seen: Vec<Seen> = encoded.iter().map(Record::seen).collect();
    assert_eq!(seen, model::records(&whole, &file::settings(config)));
    let printed_texts = printed.iter().map(|record| record["log"].as_str());
    assert!(
        printed_texts.eq(seen.iter().map(|record| Some(record.text.as_str()))),
        "the two encodings differ"
    );
    // EventTime ends in 2106; the epoch stands for what it cannot say.
    let is_same =
        |(time, record): (&Value, &Seen)| record.time.seconds == 0 || *time == record.time.to_string();
    assert!(times.iter().zip(&seen).all(is_same), "the two encodings differ");
}

/// Reads a file that grows by these pieces until nobody will write it any more.
fn read<'a, F: Format>(pieces: impl IntoIterator<Item = &'a [u8]>, mut pod: Pod<F>) -> Arrived {
    pieces.into_iter().for_each(|piece| pod.write(piece));
    pod.finish()
}

/// Reads the same bytes from several files, each of whole lines that are about `size` bytes together, and begins anew behind
/// each of them.
fn read_files<F: Format>(mut bytes: &[u8], size: usize, mut pod: Pod<F>) -> Arrived {
    while let Some(newline) = bytes.iter().skip(size).position(|byte| *byte == b'\n') {
        let (file, rest) = bytes.split_at(size + newline + 1);
        pod.write(file);
        pod.restart();
        pod.rotate();
        bytes = rest;
    }
    pod.write(bytes);
    pod.finish()
}

/// What records say but for the time: a line without one has that of the line before, which a restart does not know.
fn texts(records: &[Record]) -> Vec<&Value> {
    records.iter().map(|record| &record.fields).collect()
}

/// The same, in any order and however often.
fn set(records: &[Record]) -> BTreeSet<String> {
    records.iter().map(|record| record.fields.to_string()).collect()
}

/// The pieces of `piece` bytes each, with what [`LONG`] stands for.
fn long_lines(bytes: &[u8], piece: usize) -> Vec<Vec<u8>> {
    let mut left = MAX_LONG;
    let expand = |piece: &[u8]| {
        let mut expanded = Vec::with_capacity(piece.len());
        for byte in piece {
            if *byte == LONG && left > 0 {
                left -= 1;
                expanded.resize(expanded.len() + LONG_BYTES, b'x');
            } else {
                expanded.push(*byte);
            }
        }
        expanded
    };
    bytes.chunks(piece).map(expand).collect()
}
