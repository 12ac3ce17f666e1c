//! The checkpoint file: damaged, of another version, or our own.

mod directory;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sidelight_agent::checkpoint::store::{Saved, render};

use crate::json::Entries;

/// What a line must have to be one of a generation.
const KNOWN: [&str; 8] = ["namespace", "pod", "uid", "container", "restart", "first_line", "size", "outputs"];

/// What a checkpoint says, by (pod UID, container, restart, identity).
type Positions = BTreeMap<(String, String, u64, String), Value>;

/// The bytes are a checkpoint file, and once more all but its last line.
///
/// A file whose checksum is right gives the positions that are in it, and is written back with all that it said; one bit
/// that is wrong gives no position that was not there; and a file that is damaged is passed over for the one before.
pub fn checkpoints(data: &[u8]) {
    directory::is_loaded_or_the_one_before(data);
    let mut file = data.to_vec();
    if file.last().is_some_and(|byte| *byte != b'\n') {
        file.push(b'\n');
    }
    let foot = json!({ "generations": 1, "crc32": crc32fast::hash(&file) });
    file.extend_from_slice(format!("{foot}\n").as_bytes());
    let Some(saved) = Saved::parse(&file) else { return };
    said(data, &saved);
    let again = render(std::iter::empty(), &[], &saved);
    let read_again = Saved::parse(&again).expect("what was written is whole");
    assert_eq!(positions(&read_again), positions(&saved));
    let head = |file: &[u8]| {
        let mut head = lines(file).next().map(|Entries(head)| head.into_iter().collect::<Map<_, _>>());
        head.as_mut().map(|head| head.remove("sidelight_checkpoints"));
        head
    };
    assert_eq!(head(&again), head(data), "the head is written back");
    flipped(&file, data, &saved);
}

/// The lines that are objects.
fn lines(file: &[u8]) -> impl Iterator<Item = Entries> {
    let lines = file.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.filter_map(|line| serde_json::from_slice(line).ok())
}

fn positions(saved: &Saved) -> Positions {
    let bytes = render(std::iter::empty(), &[], saved);
    lines(&bytes).skip(1).filter_map(|line| position(&line)).collect()
}

/// A line of a generation, if it is one: the reading of it that is not the agent's.
fn position(Entries(entries): &Entries) -> Option<((String, String, u64, String), Value)> {
    let stands_once = |key: &&str| entries.iter().filter(|(other, _)| other == key).count() == 1;
    let mut fields: Map<_, _> = entries.iter().cloned().collect();
    let text = |key: &str| Some(fields.get(key)?.as_str()?.to_owned());
    let restart = fields.get("restart")?.as_u64().filter(|restart| u32::try_from(*restart).is_ok())?;
    let key = (text("uid")?, text("container")?, restart, text("first_line")?);
    let outputs = fields.get("outputs")?.as_object()?;
    let is_whole = KNOWN.iter().all(stands_once)
        && fields["namespace"].is_string()
        && fields["pod"].is_string()
        && fields["size"].is_u64()
        && outputs.values().all(Value::is_u64)
        && entries.iter().filter(|(key, _)| key == "streams").count() <= 1
        && fields.get("streams").is_none_or(are_offsets);
    // Without an entry it is not written.
    if fields.get("streams").is_some_and(|streams| streams == &json!({})) {
        fields.remove("streams");
    }
    is_whole.then_some((key, fields.into()))
}

/// For some outputs, an offset for each of the two streams and one for neither.
fn are_offsets(streams: &Value) -> bool {
    let are_three = |offsets: &Value| {
        offsets.as_array().is_some_and(|offsets| offsets.len() == 3 && offsets.iter().all(Value::is_u64))
    };
    streams.as_object().is_some_and(|streams| streams.values().all(are_three))
}

/// Every generation and every output that the file names is there, with every field.
fn said(data: &[u8], saved: &Saved) {
    let mut all = lines(data);
    let Entries(head) = all.next().expect("a head");
    for (_, outputs) in head.iter().filter(|(key, _)| key == "outputs") {
        let mut names = outputs.as_array().into_iter().flatten().filter_map(Value::as_str);
        assert!(names.all(|name| saved.knows_output(name)));
    }
    let said: Positions = all.filter_map(|line| position(&line)).collect();
    assert_eq!(positions(saved), said);
}

/// One wrong bit, of those that the last bytes choose, changes no position: the file is damaged then, or says the same.
fn flipped(file: &[u8], data: &[u8], saved: &Saved) {
    let choice = data.iter().rev().take(8).fold(0, |sum: usize, byte| sum << 3 ^ usize::from(*byte));
    for bit in (0..64).map(|step| (choice + step * 257) % (file.len() * 8)) {
        let mut file = file.to_vec();
        file[bit / 8] ^= 1 << (bit % 8);
        if let Some(read) = Saved::parse(&file) {
            assert_eq!(positions(&read), positions(saved), "bit {bit}");
        }
    }
}
