//! The text of one record, parsed and encoded.

use serde_json::{Map, Value};
use sidelight_agent::logs::encode::{Format, Forward, JsonLines, ValueSink};
use sidelight_agent::logs::parse::{Level, Outcome, RESERVED, parse};
use sidelight_agent::logs::split::Time;
use sidelight_contract::annotations::Parse;

use crate::json::{Entries, are_equal, of_msgpack};

/// Deeper than serde_json and the agent read.
const DEEP: usize = 120;

/// Whatever a text says, a record is valid in both encodings and the same in both, and none of its fields takes a key that the
/// record needs for itself; an object has the fields that serde_json reads; and what has no fields leaves nothing behind.
pub fn parsers(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Two keys of the operator's, beside those of every record.
    let taken: Vec<String> = RESERVED.into_iter().chain(["env", "message"]).map(str::to_owned).collect();
    for kind in [Parse::None, Parse::Json, Parse::Tracing, Parse::Logfmt, Parse::Auto] {
        let (outcome, packed) = encode(Forward::default(), kind, text, &taken);
        let (also, printed) = encode(JsonLines, kind, text, &taken);
        assert_eq!(outcome, also);
        if !matches!(outcome, Outcome::Parsed(_)) {
            continue;
        }
        let mut rest = &packed[..];
        let packed = of_msgpack(&rmpv::decode::read_value(&mut rest).expect("MessagePack")[1]);
        assert!(rest.is_empty(), "one record");
        let printed: Value = serde_json::from_slice(&printed).expect("JSON");
        let (packed, printed) = (fields(packed), fields(printed));
        assert!(are_equal(&packed, &printed), "{kind:?}: {packed} and {printed}");
        let keys: Vec<_> = packed.as_object().into_iter().flat_map(Map::keys).collect();
        assert!(!keys.iter().any(|key| taken.contains(key)), "{kind:?}: {keys:?} has a key that is taken");
        says_its_level(kind, text, outcome, &packed);
    }
    object(text, &taken);
}

/// A record with the fields of a text and nothing else of its own.
fn encode<F: Format>(mut format: F, kind: Parse, text: &str, taken: &[String]) -> (Outcome, Vec<u8>) {
    let mut bytes = Vec::new();
    let fragment = format.fragment(|sink| {
        sink.key("stream");
        sink.str("stdout");
    });
    let mut sink = format.begin(&mut bytes, Time::default(), &fragment);
    let outcome = parse(kind, text, taken, &mut sink);
    F::end(sink);
    (outcome, bytes)
}

/// The record without what it has for itself.
fn fields(mut record: Value) -> Value {
    let entries = record.as_object_mut().expect("a record is a map");
    assert_eq!(entries.remove("stream"), Some("stdout".into()));
    entries.remove("time");
    record
}

/// A line of tracing's text says the level that drop rules see.
fn says_its_level(kind: Parse, text: &str, outcome: Outcome, fields: &Value) {
    let Outcome::Parsed(Some(level)) = outcome else { return };
    if kind == Parse::Tracing && !text.trim_start().starts_with('{') {
        assert_eq!(fields["level"].as_str().and_then(Level::parse), Some(level));
    }
}

/// What serde_json takes for an object is lifted as it is, and what it does not is sent raw.
fn object(text: &str, taken: &[String]) {
    if !text.trim_start().starts_with('{') {
        return;
    }
    let (outcome, packed) = encode(Forward::default(), Parse::Json, text, taken);
    let is_parsed = matches!(outcome, Outcome::Parsed(_));
    let Ok(Entries(entries)) = serde_json::from_str(text) else {
        // serde_json refuses half a surrogate pair, and nests a little less deep.
        let may_differ = text.contains("\\u") || text.matches(['{', '[']).count() > DEEP;
        return assert!(!is_parsed || may_differ, "{text:?} is no JSON");
    };
    assert!(is_parsed, "{text:?} is JSON: {outcome:?}");
    let record = of_msgpack(&rmpv::decode::read_value(&mut &packed[..]).expect("MessagePack")[1]);
    let field = |(key, value)| (if taken.contains(&key) { format!("{key}_") } else { key }, value);
    let expected: Map<_, _> = entries.into_iter().map(field).collect();
    let record = fields(record);
    assert!(are_equal(&record, &expected.into()), "{text:?} became {record}");
}
