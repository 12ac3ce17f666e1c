//! What is needed of Protocol Buffers to write, and nothing else: the messages are few and their parts are encoded once.
//!
//! Source: the encoding of the wire format, and `prompb/types.proto` and `remote.proto` of Prometheus.

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

/// Appends field 1 of a `TimeSeries`: a `Label` with its name and value.
pub(crate) fn label(bytes: &mut Vec<u8>, name: &str, value: &str) {
    let part = |text: &str| 1 + varint_len(text.len() as u64) + text.len();
    length_delimited(bytes, 1, part(name) + part(value));
    for (field, text) in [(1, name), (2, value)] {
        length_delimited(bytes, field, text.len());
        bytes.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
