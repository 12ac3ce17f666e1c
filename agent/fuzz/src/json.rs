//! JSON as serde_json reads it, and values of two encodings compared.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The entries of an object in their order, those too whose key comes twice.
pub(crate) struct Entries(pub(crate) Vec<(String, Value)>);

/// What a MessagePack value is in JSON; of keys that come twice the last one stays.
pub(crate) fn of_msgpack(value: &rmpv::Value) -> Value {
    let text = |text: &rmpv::Utf8String| text.as_str().expect("UTF-8").to_owned();
    match value {
        rmpv::Value::Nil => Value::Null,
        rmpv::Value::Boolean(value) => Value::Bool(*value),
        rmpv::Value::Integer(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => number.into(),
            (None, number) => number.into(),
        },
        rmpv::Value::F64(number) => Number::from_f64(*number).expect("a number that JSON has").into(),
        rmpv::Value::String(string) => Value::String(text(string)),
        rmpv::Value::Array(items) => items.iter().map(of_msgpack).collect(),
        rmpv::Value::Map(entries) => {
            let entry = |(key, value): &(rmpv::Value, rmpv::Value)| {
                let rmpv::Value::String(key) = key else { panic!("a key that is no text: {key}") };
                (text(key), of_msgpack(value))
            };
            Value::Object(entries.iter().map(entry).collect::<Map<_, _>>())
        }
        other => panic!("no record has a value such as {other}"),
    }
}

/// Whether two values are the same, numbers as far as serde_json reads them: its floats are off by a bit now and then, and it
/// has a zero with a sign.
pub(crate) fn are_equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left == right || are_close(left, right),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| are_equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            let same = |(key, value)| right.get(key).is_some_and(|other| are_equal(value, other));
            left.len() == right.len() && left.iter().all(same)
        }
        (left, right) => left == right,
    }
}

fn are_close(left: &Number, right: &Number) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left == right || (left - right).abs() <= 1e-15 * left.abs(),
        _ => false,
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;
        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Entries, M::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(EntriesVisitor)
    }
}
