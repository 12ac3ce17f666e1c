//! The floor: the least that any program of this kind must do, as a bare loop on one thread.
//!
//! It reads the files, finds the newlines, reads the CRI head, copies a block of metadata and the body into a chunk and
//! sends that as one Forward message. Nothing is joined, checked, acknowledged or remembered.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;

use crate::node;
use crate::subject::Compression;

const WINDOW: usize = 256 << 10;
const CHUNK: usize = 1 << 20;
/// Seconds and nanoseconds in a head; a record has eight bytes for them.
const TIME: usize = 11;
/// What pod metadata take in a record.
const METADATA: usize = 600;

/// Where chunks go.
struct Sink {
    /// None: they are thrown away.
    socket: Option<TcpStream>,
    compression: Compression,
    deflate: flate2::Compress,
    zstd: zstd::bulk::Compressor<'static>,
    packed: Vec<u8>,
}

/// Sends every line below `pods`; gives their number.
///
/// # Errors
/// The system's.
pub(crate) fn run(pods: &Path, address: Option<&str>, compression: Compression) -> io::Result<u64> {
    let mut sink = Sink {
        socket: address.map(TcpStream::connect).transpose()?,
        compression,
        deflate: flate2::Compress::new(flate2::Compression::new(1), false),
        zstd: zstd::bulk::Compressor::new(1)?,
        packed: Vec::with_capacity(2 * CHUNK),
    };
    let (mut window, mut chunk) = (vec![0; WINDOW], Vec::with_capacity(CHUNK + WINDOW));
    // Real text: one byte again and again would be compressed for nothing.
    let mut metadata = node::pod(0, 1).to_string().into_bytes();
    metadata.resize(METADATA, b' ');
    let mut lines = 0;
    let mut in_chunk = 0;
    for pod in std::fs::read_dir(pods)? {
        let mut file = File::open(pod?.path().join("app/0.log"))?;
        let mut kept = 0;
        loop {
            let read = file.read(&mut window[kept..])?;
            if read == 0 {
                break;
            }
            let filled = kept + read;
            let mut start = 0;
            for newline in memchr::memchr_iter(b'\n', &window[..filled]) {
                let line = &window[start..newline];
                start = newline + 1;
                lines += 1;
                in_chunk += 1;
                copy(line, &metadata, &mut chunk);
                if chunk.len() + METADATA + WINDOW / 8 > CHUNK {
                    sink.send(&chunk, std::mem::take(&mut in_chunk))?;
                    chunk.clear();
                }
            }
            window.copy_within(start..filled, 0);
            kept = filled - start;
        }
    }
    sink.send(&chunk, in_chunk)?;
    Ok(lines)
}

fn copy(line: &[u8], metadata: &[u8], chunk: &mut Vec<u8>) {
    let space = memchr::memchr(b' ', line).unwrap_or(0);
    let body = line.get(space + 10..).unwrap_or_default();
    // What varies of the time, so that there is as much to compress as in a record.
    chunk.extend_from_slice(&line[space.saturating_sub(TIME)..space]);
    chunk.extend_from_slice(metadata);
    chunk.extend_from_slice(body);
}

// === impl Sink ===

impl Sink {
    /// `["tag", bin 32, {"size": lines}]`, so that the same receiver counts it.
    fn send(&mut self, chunk: &[u8], lines: u32) -> io::Result<()> {
        self.packed.clear();
        let entries = match self.compression {
            Compression::None => chunk,
            Compression::Gzip => {
                self.deflate.reset();
                let flush = flate2::FlushCompress::Finish;
                self.deflate.compress_vec(chunk, &mut self.packed, flush).map_err(io::Error::other)?;
                &self.packed
            }
            Compression::Zstd => {
                self.zstd.compress_to_buffer(chunk, &mut self.packed)?;
                &self.packed
            }
        };
        let Some(socket) = &mut self.socket else {
            std::hint::black_box(entries);
            return Ok(());
        };
        let mut head = vec![0x93, 0xa3, b't', b'a', b'g', 0xc6];
        head.extend_from_slice(&u32::try_from(entries.len()).map_err(io::Error::other)?.to_be_bytes());
        let mut foot = vec![0x81, 0xa4, b's', b'i', b'z', b'e', 0xce];
        foot.extend_from_slice(&lines.to_be_bytes());
        socket.write_all(&head)?;
        socket.write_all(entries)?;
        socket.write_all(&foot)
    }
}
