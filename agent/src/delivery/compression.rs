//! Compresses closed chunks, with one encoder for each lane.

mod deflate;

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use crate::delivery::chunk::Compression;
use crate::delivery::compression::deflate::Deflater;
use crate::delivery::memory::COPY_PART;

/// Logs repeat their metadata in every record, which the fastest match search finds as well.
const ZSTD_LEVEL: i32 = 1;
/// RFC 1952: magic, deflate, no flags, no time, fastest, Unix.
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 3];

/// One lane's encoder.
pub struct Compressor(Encoder);

enum Encoder {
    None,
    Gzip(Deflater),
    /// With room for the output.
    Zstd(Box<zstd::bulk::Compressor<'static>>, Vec<u8>),
}

// === impl Compressor ===

impl Compressor {
    /// An encoder; it is used again for every chunk.
    pub fn new(compression: Compression) -> Self {
        Compressor(match compression {
            Compression::None => Encoder::None,
            Compression::Gzip => Encoder::Gzip(Deflater::new()),
            Compression::Zstd => match zstd::bulk::Compressor::new(ZSTD_LEVEL) {
                Ok(encoder) => Encoder::Zstd(Box::new(encoder), Vec::new()),
                Err(_) => Encoder::None,
            },
        })
    }

    /// Takes the entries: compressed into an empty buffer, their own left empty for the next ones; or as they are, the buffer
    /// with them.
    pub fn compress(
        &mut self,
        entries: &mut Vec<u8>,
        buffer: impl FnOnce() -> Vec<u8>,
    ) -> (Vec<u8>, Compression) {
        match self.compressed(entries, buffer) {
            Some(compressed) => {
                entries.clear();
                compressed
            }
            None => (std::mem::take(entries), Compression::None),
        }
    }

    /// The entries, compressed, or as they are.
    pub fn copy(&mut self, entries: &[u8]) -> (Vec<u8>, Compression) {
        self.compressed(entries, Vec::new).unwrap_or_else(|| (entries.to_vec(), Compression::None))
    }

    fn compressed(
        &mut self,
        entries: &[u8],
        buffer: impl FnOnce() -> Vec<u8>,
    ) -> Option<(Vec<u8>, Compression)> {
        match &mut self.0 {
            Encoder::None => None,
            Encoder::Gzip(deflater) => Some((gzip(deflater, entries, buffer()), Compression::Gzip)),
            Encoder::Zstd(encoder, room) => {
                room.clear();
                room.reserve(zstd::zstd_safe::compress_bound(entries.len()));
                encoder.compress_to_buffer(entries, room).ok()?;
                Some((filled(buffer(), &[room]), Compression::Zstd))
            }
        }
    }
}

fn gzip(deflater: &mut Deflater, entries: &[u8], buffer: Vec<u8>) -> Vec<u8> {
    let deflated = deflater.deflate(entries);
    // RFC 1952: the length modulo 2^32.
    let (checksum, length) = (crc32fast::hash(entries), entries.len() as u32);
    filled(buffer, &[&GZIP_HEAD, deflated, &checksum.to_le_bytes(), &length.to_le_bytes()])
}

/// The buffer with the parts, no longer than they need if it was too short.
fn filled(mut buffer: Vec<u8>, parts: &[&[u8]]) -> Vec<u8> {
    buffer.reserve_exact(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| buffer.extend_from_slice(part));
    buffer
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compressor")
    }
}

// === impl Compression ===

impl Compression {
    /// Unpacks the entries of a chunk that is compressed so, `bytes` of them.
    ///
    /// # Errors
    /// It is not, or they are fewer; then they are as they were.
    pub fn unpack(self, entries: &mut Vec<u8>, bytes: usize) -> io::Result<()> {
        match self {
            Compression::None => {}
            Compression::Gzip => {
                let mut unpacked = vec![0; bytes];
                flate2::read::GzDecoder::new(&entries[..]).read_exact(&mut unpacked)?;
                *entries = unpacked;
            }
            Compression::Zstd => {
                let unpacked = zstd::bulk::decompress(entries, bytes)?;
                if unpacked.len() < bytes {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                *entries = unpacked;
            }
        }
        Ok(())
    }

    /// What an encoder for chunks of so many bytes keeps at most, in bytes; with a spare buffer of its output, which has no
    /// more of them than it has encoders.
    pub fn fixed_bytes(self, chunk_bytes: u64) -> u64 {
        let spare = chunk_bytes / COPY_PART as u64;
        match self {
            Compression::None => 0,
            Compression::Gzip => deflate::TABLE_BYTES + deflate::room(chunk_bytes) + spare,
            // Room for what cannot be compressed, and the context of level 1.
            Compression::Zstd => chunk_bytes + (1 << 20) + spare,
        }
    }
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Compression::None),
            "gzip" => Ok(Compression::Gzip),
            "zstd" => Ok(Compression::Zstd),
            other => Err(format!("{other:?} is not allowed: none, gzip or zstd")),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_is_one_frame_that_gives_the_entries_back() {
        let entries: Vec<u8> =
            (0..20_000u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) >> (n % 30)).to_be_bytes()).collect();
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let mut compressor = Compressor::new(compression);
            for length in [0, 1, 1000, entries.len()] {
                let (mut bytes, said) = compressor.compress(&mut entries[..length].to_vec(), Vec::new);
                assert_eq!(said, compression);
                compression.unpack(&mut bytes, length).unwrap();
                assert_eq!(bytes, entries[..length]);
            }
        }
    }
}
