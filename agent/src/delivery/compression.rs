//! Compresses closed chunks, with one encoder for each lane.

use std::fmt;
use std::str::FromStr;

use flate2::{Compress, Compression as Level, FlushCompress, Status};

use crate::delivery::chunk::Compression;

/// Deflate's level 1: logs repeat their metadata in every record, which the fastest match search finds as well.
const GZIP_LEVEL: u32 = 1;
const ZSTD_LEVEL: i32 = 1;
/// RFC 1952: magic, deflate, no flags, no time, fastest, Unix.
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 3];

/// One lane's encoder.
pub struct Compressor(Encoder);

enum Encoder {
    None,
    Gzip(Compress),
    Zstd(Box<zstd::bulk::Compressor<'static>>),
}

// === impl Compressor ===

impl Compressor {
    /// An encoder; it is used again for every chunk.
    pub fn new(compression: Compression) -> Self {
        Compressor(match compression {
            Compression::None => Encoder::None,
            Compression::Gzip => Encoder::Gzip(Compress::new(Level::new(GZIP_LEVEL), false)),
            Compression::Zstd => match zstd::bulk::Compressor::new(ZSTD_LEVEL) {
                Ok(encoder) => Encoder::Zstd(Box::new(encoder)),
                Err(_) => Encoder::None,
            },
        })
    }

    /// Takes the entries: compressed, the buffer empty for the next ones, or as they are, the buffer with them.
    pub fn compress(&mut self, entries: &mut Vec<u8>) -> (Vec<u8>, Compression) {
        let compressed = match &mut self.0 {
            Encoder::None => None,
            Encoder::Gzip(encoder) => gzip(encoder, entries).map(|bytes| (bytes, Compression::Gzip)),
            Encoder::Zstd(encoder) => encoder.compress(entries).ok().map(|bytes| (bytes, Compression::Zstd)),
        };
        match compressed {
            Some((mut bytes, compression)) => {
                bytes.shrink_to_fit();
                entries.clear();
                (bytes, compression)
            }
            None => (std::mem::take(entries), Compression::None),
        }
    }
}

fn gzip(encoder: &mut Compress, entries: &[u8]) -> Option<Vec<u8>> {
    encoder.reset();
    let mut bytes = Vec::with_capacity(entries.len() / 4 + 1024);
    bytes.extend_from_slice(&GZIP_HEAD);
    loop {
        let done = usize::try_from(encoder.total_in()).ok()?;
        match encoder.compress_vec(&entries[done..], &mut bytes, FlushCompress::Finish).ok()? {
            Status::StreamEnd => break,
            Status::Ok | Status::BufError => bytes.reserve(bytes.capacity() / 2),
        }
    }
    bytes.extend_from_slice(&crc32fast::hash(entries).to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(entries.len()).ok()?.to_le_bytes());
    Some(bytes)
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compressor")
    }
}

// === impl Compression ===

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
    use std::io::Read;

    use super::*;

    #[test]
    fn every_chunk_is_one_frame_that_gives_the_entries_back() {
        let entries: Vec<u8> =
            (0..20_000u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) >> (n % 30)).to_be_bytes()).collect();
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let mut compressor = Compressor::new(compression);
            for length in [0, 1, 1000, entries.len()] {
                let (bytes, said) = compressor.compress(&mut entries[..length].to_vec());
                assert_eq!(said, compression);
                let mut back = Vec::new();
                match compression {
                    Compression::None => back = bytes,
                    Compression::Gzip => {
                        let _ = flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut back).unwrap();
                    }
                    Compression::Zstd => back = zstd::decode_all(&bytes[..]).unwrap(),
                }
                assert_eq!(back, entries[..length]);
            }
        }
    }
}
