//! Messages of the Forward protocol: what stands around a chunk's entries, and replies.

use std::io;

use rmpv::Value;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::delivery::chunk::Compression;
use crate::delivery::forward::parcel::Parcel;

/// A reply longer than this is none.
const MAX_REPLY: usize = 64 << 10;

/// What stands before and behind a parcel's entries: `[tag, bin, {chunk, size, compressed}]`.
pub(super) fn envelope(parcel: &Parcel, ack: bool) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut head = Vec::with_capacity(parcel.tag().len() + 16);
    rmpv::encode::write_value(&mut head, &Value::from(parcel.tag())).map_err(io::Error::other)?;
    head.insert(0, 0x93);
    // bin 32: entries may be of any length.
    head.push(0xc6);
    let length = u32::try_from(parcel.entries().len()).map_err(io::Error::other)?;
    head.extend_from_slice(&length.to_be_bytes());
    let mut options = vec![(Value::from("size"), Value::from(parcel.records()))];
    if ack {
        options.push((Value::from("chunk"), Value::from(chunk_id(parcel.id()))));
    }
    if parcel.compression() != Compression::None {
        options.push((Value::from("compressed"), Value::from(parcel.compression().to_string())));
    }
    let mut foot = Vec::with_capacity(64);
    rmpv::encode::write_value(&mut foot, &Value::Map(options)).map_err(io::Error::other)?;
    Ok((head, foot))
}

/// A chunk id on the wire: 32 lower-case hex digits, which every receiver takes as a text and gives back unchanged.
pub(super) fn chunk_id(id: &[u8; 16]) -> String {
    hex(id)
}

/// Lower-case hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A text or binary value's bytes: receivers differ in which they send.
pub(super) fn bytes_of(value: &Value) -> Option<&[u8]> {
    match value {
        Value::String(text) => Some(text.as_bytes()),
        Value::Binary(bytes) => Some(bytes),
        _ => None,
    }
}

/// The chunk id that a reply acknowledges.
pub fn acknowledged(reply: &Value) -> Option<&[u8]> {
    let (_, id) = reply.as_map()?.iter().find(|(key, _)| bytes_of(key) == Some(b"ack"))?;
    bytes_of(id)
}

/// Replies, decoded as they come: in pieces, or several in one segment.
#[derive(Debug, Default)]
pub struct Replies {
    buffer: Vec<u8>,
}

// === impl Replies ===

impl Replies {
    /// The next reply.
    ///
    /// # Errors
    /// The socket's, its end, or bytes that are no reply.
    pub async fn next(&mut self, socket: &mut (impl AsyncRead + Unpin)) -> io::Result<Value> {
        loop {
            if let Some(value) = self.decode()? {
                return Ok(value);
            }
            if socket.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the receiver has closed the connection",
                ));
            }
        }
    }

    fn decode(&mut self) -> io::Result<Option<Value>> {
        let mut rest = self.buffer.as_slice();
        match rmpv::decode::read_value_with_max_depth(&mut rest, 8) {
            Ok(value) => {
                let used = self.buffer.len() - rest.len();
                self.buffer.drain(..used);
                Ok(Some(value))
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && self.buffer.len() < MAX_REPLY => {
                Ok(None)
            }
            Err(error) => Err(io::Error::other(format!(
                "the receiver's reply is not MessagePack, or longer than {MAX_REPLY} bytes: {error}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn replies_are_found_byte_by_byte_and_several_in_one_segment() {
        let mut wire = Vec::new();
        for id in ["a", "bb"] {
            rmpv::encode::write_value(&mut wire, &Value::Map(vec![(Value::from("ack"), Value::from(id))]))
                .unwrap();
        }
        let mut replies = Replies::default();
        let mut whole = wire.as_slice();
        assert_eq!(replies.next(&mut whole).await.unwrap()["ack"], Value::from("a"));
        assert_eq!(replies.next(&mut whole).await.unwrap()["ack"], Value::from("bb"));
        let mut replies = Replies::default();
        for (at, byte) in wire.iter().enumerate() {
            let found = replies.next(&mut [*byte].as_slice()).await;
            assert_eq!(found.is_ok(), at == 6 || at == wire.len() - 1, "at {at}");
        }
    }

    #[tokio::test]
    async fn a_reply_that_is_none_is_an_error_and_not_a_wait() {
        let endless = vec![0xdb, 0xff, 0xff, 0xff, 0xff]
            .into_iter()
            .chain(std::iter::repeat_n(b'x', MAX_REPLY))
            .collect::<Vec<_>>();
        let error = Replies::default().next(&mut endless.as_slice()).await.unwrap_err();
        assert!(error.to_string().contains("longer"), "{error}");
    }
}
