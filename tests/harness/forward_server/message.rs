//! What a message must be, and what its records hold.

use std::io::Read;

use rmpv::Value;

use super::Received;

/// Checks one message against the specification and unpacks its records.
pub(super) fn check(message: &Value) -> Result<Vec<Received>, String> {
    let fields = message.as_array().filter(|fields| fields.len() == 3).ok_or("not an array of three")?;
    let tag = fields[0].as_str().ok_or("the tag is no text")?;
    let packed = fields[1].as_slice().ok_or("the entries are neither bin nor str")?;
    let options = &fields[2];
    let chunk = options["chunk"].as_str().unwrap_or_default().to_owned();
    let inflated = match options["compressed"].as_str() {
        None => packed.to_vec(),
        Some("gzip") => {
            let mut bytes = Vec::new();
            flate2::read::MultiGzDecoder::new(packed)
                .read_to_end(&mut bytes)
                .map_err(|error| error.to_string())?;
            bytes
        }
        Some("zstd") => zstd::decode_all(packed).map_err(|error| error.to_string())?,
        Some(other) => return Err(format!("compressed by {other}")),
    };
    let mut rest = inflated.as_slice();
    let mut records = Vec::new();
    while !rest.is_empty() {
        let entry =
            rmpv::decode::read_value(&mut rest).map_err(|error| format!("an entry is broken: {error}"))?;
        let Value::Array(entry) = entry else { return Err(format!("an entry is no array: {entry}")) };
        let [time, record] = <[Value; 2]>::try_from(entry).map_err(|_| "an entry is no pair")?;
        let time = match &time {
            Value::Ext(0, bytes) if bytes.len() == 8 => {
                let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
                (number(&bytes[..4]), number(&bytes[4..]))
            }
            other => return Err(format!("the time is no EventTime: {other}")),
        };
        check_texts(&record)?;
        if !record.is_map() {
            return Err(format!("the record is no map: {record}"));
        }
        records.push(Received { tag: tag.to_owned(), time, record, chunk: chunk.clone() });
    }
    match options["size"].as_u64() {
        Some(size) if size == records.len() as u64 => Ok(records),
        size => Err(format!("size says {size:?}, there are {}", records.len())),
    }
}

/// Every text is UTF-8, every key a text and there once.
fn check_texts(value: &Value) -> Result<(), String> {
    match value {
        Value::String(text) if text.as_str().is_none() => Err(format!("not UTF-8: {text:?}")),
        Value::Array(items) => items.iter().try_for_each(check_texts),
        Value::Map(entries) => {
            let mut keys: Vec<&str> = entries.iter().filter_map(|(key, _)| key.as_str()).collect();
            if keys.len() != entries.len() {
                return Err(format!("a key is no text: {value}"));
            }
            keys.sort_unstable();
            if let Some(twice) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(format!("the key {} is there twice", twice[0]));
            }
            entries.iter().try_for_each(|(_, value)| check_texts(value))
        }
        _ => Ok(()),
    }
}

/// What stands behind `seq=` in a record's text.
fn numbered(record: &Value) -> Option<&str> {
    ["log", "message"].into_iter().find_map(|key| Some(record[key].as_str()?.split_once("seq=")?.1))
}

/// The `seq=WRITER:NUMBER` of a record's text.
pub(super) fn sequence(record: &Value) -> Option<(String, u64)> {
    let (writer, rest) = numbered(record)?.split_once(':')?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((writer.to_owned(), digits.parse().ok()?))
}

/// Whether the text is what its `sum=` says: of `seq=WRITER:NUMBER sum=SUM TEXT`, all but the sum. Without one, nobody
/// can know.
pub(super) fn is_undamaged(record: &Value) -> bool {
    let Some((head, rest)) = numbered(record).and_then(|text| text.split_once(" sum=")) else { return true };
    rest.split_once(' ').is_some_and(|(sum, text)| sum == crate::checksum(head, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_size_and_a_key_twice_are_violations() {
        let entry = |record: Value| {
            let mut bytes = Vec::new();
            let time = Value::Ext(0, vec![0; 8]);
            rmpv::encode::write_value(&mut bytes, &Value::Array(vec![time, record])).unwrap();
            bytes
        };
        let message = |bytes: Vec<u8>, size: u64| {
            Value::Array(vec![
                Value::from("t"),
                Value::Binary(bytes),
                Value::Map(vec![(Value::from("size"), Value::from(size))]),
            ])
        };
        let twice = Value::Map(vec![(Value::from("a"), Value::Nil), (Value::from("a"), Value::Nil)]);
        assert!(check(&message(entry(Value::Map(vec![])), 1)).is_ok());
        assert!(check(&message(entry(Value::Map(vec![])), 2)).is_err());
        assert!(check(&message(entry(twice), 1)).is_err());
    }
}
