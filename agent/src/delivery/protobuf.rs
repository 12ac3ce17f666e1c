//! What is needed of Protocol Buffers, and nothing else: the messages are few, and what is written is encoded once.
//!
//! Source: the encoding of the wire format, and `prompb/types.proto`, `remote.proto` and `io/prometheus/write/v2/types.proto`
//! of Prometheus.

/// Appends a number of seven bits a byte.
pub(crate) fn varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Bytes that [`varint`] appends.
pub(crate) fn varint_len(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends the head of a field with a length: strings, bytes and messages.
pub(crate) fn length_delimited(bytes: &mut Vec<u8>, field: u32, length: usize) {
    varint(bytes, u64::from(field << 3 | 2));
    varint(bytes, length as u64);
}

/// Appends a number.
pub(crate) fn number(bytes: &mut Vec<u8>, field: u32, value: u64) {
    varint(bytes, u64::from(field << 3));
    varint(bytes, value);
}

/// Appends a double.
pub(crate) fn double(bytes: &mut Vec<u8>, field: u32, value: f64) {
    varint(bytes, u64::from(field << 3 | 1));
    bytes.extend_from_slice(&value.to_le_bytes());
}

/// Appends field 2 of a `TimeSeries`: a `Sample` with its value, its time, and when the counter began. Times are
/// milliseconds since the epoch; negative ones take ten bytes.
pub(crate) fn sample(bytes: &mut Vec<u8>, value: f64, timestamp: i64, start: Option<i64>) {
    length_delimited(bytes, 2, sample_len(timestamp, start));
    double(bytes, 1, value);
    number(bytes, 2, timestamp.cast_unsigned());
    if let Some(start) = start {
        number(bytes, 3, start.cast_unsigned());
    }
}

/// Bytes of a `Sample`, without the head of its field.
pub(crate) fn sample_len(timestamp: i64, start: Option<i64>) -> usize {
    let time = |time: i64| 1 + varint_len(time.cast_unsigned());
    1 + size_of::<f64>() + time(timestamp) + start.map_or(0, time)
}

/// Appends field 3 of a `TimeSeries` of 2.0: a `Histogram` that is encoded but for its times.
pub(crate) fn histogram(bytes: &mut Vec<u8>, histogram: &[u8], timestamp: i64, start: Option<i64>) {
    length_delimited(bytes, 3, histogram.len() + times_len(timestamp, start));
    bytes.extend_from_slice(histogram);
    number(bytes, 15, timestamp.cast_unsigned());
    if let Some(start) = start {
        number(bytes, 17, start.cast_unsigned());
    }
}

/// Bytes of the times that [`histogram`] appends: their fields begin with one byte, and with two.
pub(crate) fn times_len(timestamp: i64, start: Option<i64>) -> usize {
    let time = |time: i64| varint_len(time.cast_unsigned());
    1 + time(timestamp) + start.map_or(0, |start| 2 + time(start))
}

/// Bytes that [`label`] appends.
pub(crate) fn label_len(name: &str, value: &str) -> usize {
    let length = pair_len(name, value);
    1 + varint_len(length as u64) + length
}

fn pair_len(name: &str, value: &str) -> usize {
    let part = |text: &str| 1 + varint_len(text.len() as u64) + text.len();
    part(name) + part(value)
}

/// Appends field 1 of a `TimeSeries`: a `Label` with its name and value.
pub(crate) fn label(bytes: &mut Vec<u8>, name: &str, value: &str) {
    length_delimited(bytes, 1, pair_len(name, value));
    for (field, text) in [(1, name), (2, value)] {
        length_delimited(bytes, field, text.len());
        bytes.extend_from_slice(text.as_bytes());
    }
}

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field<'a> {
    /// Numbers of variable length.
    Varint(u64),
    /// Doubles among them.
    Fixed64(u64),
    /// Strings, bytes and messages.
    Bytes(&'a [u8]),
    /// Floats among them.
    Fixed32(u32),
}

/// The bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The fields of a message in their order, each with its number; ends at the first that is malformed.
pub(crate) fn fields(message: &[u8]) -> impl Iterator<Item = Result<(u32, Field<'_>), Malformed>> {
    until_malformed(message, take_field)
}

/// Numbers of variable length, one behind the other, as a packed field has them; ends at the first that is malformed.
pub(crate) fn varints(packed: &[u8]) -> impl Iterator<Item = Result<u64, Malformed>> {
    until_malformed(packed, take_varint)
}

/// Messages one behind the other, each behind its length; ends at the first that is malformed.
pub(crate) fn length_prefixed(messages: &[u8]) -> impl Iterator<Item = Result<&[u8], Malformed>> {
    until_malformed(messages, |rest| {
        let length = usize::try_from(take_varint(rest)?).ok()?;
        take(rest, length)
    })
}

/// Takes one after the other from the front, to the end of the bytes or the first that cannot be taken.
fn until_malformed<'a, T>(
    mut rest: &'a [u8],
    take: impl Fn(&mut &'a [u8]) -> Option<T>,
) -> impl Iterator<Item = Result<T, Malformed>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let taken = take(&mut rest);
        if taken.is_none() {
            rest = &[];
        }
        Some(taken.ok_or(Malformed))
    })
}

fn take_field<'a>(rest: &mut &'a [u8]) -> Option<(u32, Field<'a>)> {
    let key = take_varint(rest)?;
    let value = match key & 7 {
        0 => Field::Varint(take_varint(rest)?),
        1 => Field::Fixed64(u64::from_le_bytes(*take(rest, 8)?.first_chunk()?)),
        2 => {
            let length = usize::try_from(take_varint(rest)?).ok()?;
            Field::Bytes(take(rest, length)?)
        }
        5 => Field::Fixed32(u32::from_le_bytes(*take(rest, 4)?.first_chunk()?)),
        // Groups are no part of any message that is read here.
        _ => return None,
    };
    Some((u32::try_from(key >> 3).ok()?, value))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(taken)
}

/// At most ten bytes; what does not fit into 64 bits is malformed.
fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for place in 0..10 {
        let byte = take(rest, 1)?[0];
        let bits = u64::from(byte & 0x7f);
        number |= bits.checked_shl(7 * place).filter(|shifted| shifted >> (7 * place) == bits)?;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_cut_is_malformed() {
        let mut bytes = Vec::new();
        label(&mut bytes, "name", "value");
        length_delimited(&mut bytes, 3, 0);
        bytes.extend([4 << 3 | 1, 1, 0, 0, 0, 0, 0, 0, 0, 5 << 3 | 5, 2, 0, 0, 0, 6 << 3, 0xac, 0x02]);
        let read: Vec<_> = fields(&bytes).collect();
        let Ok((1, Field::Bytes(pair))) = read[0] else { panic!("{read:?}") };
        let pair: Vec<_> = fields(pair).map(Result::unwrap).collect();
        assert_eq!(pair, [(1, Field::Bytes(b"name")), (2, Field::Bytes(b"value"))]);
        let others =
            [(3, Field::Bytes(b"")), (4, Field::Fixed64(1)), (5, Field::Fixed32(2)), (6, Field::Varint(300))];
        assert_eq!(read[1..], others.map(Ok));
        assert!(fields(&bytes[..bytes.len() - 1]).any(|field| field == Err(Malformed)));
        for malformed in
            [&[0x0a, 5, 0][..], &[0x0b], &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]]
        {
            assert_eq!(fields(malformed).collect::<Vec<_>>(), [Err(Malformed)]);
        }
        let largest = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(fields(&largest).next(), Some(Ok((1, Field::Varint(u64::MAX)))));
    }

    #[test]
    fn numbers_are_as_long_as_is_said() {
        for number in [0, 1, 127, 128, 300, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            varint(&mut bytes, number);
            assert_eq!(bytes.len(), varint_len(number), "{number}");
            let read = bytes.iter().rev().fold(0u64, |read, byte| read << 7 | u64::from(byte & 0x7f));
            assert_eq!(read, number);
        }
    }
}
