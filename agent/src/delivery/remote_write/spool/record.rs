//! How a request stands in a segment: a head of fixed length with a checksum of its own, and the body.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::super::Version;
use super::super::queue::Request;

/// Longer than any request that is made.
const MAX_BODY: u32 = 64 << 20;
const HEAD: usize = 48;
/// Of the `sent` file.
const SENT: usize = 12;

/// The head of a request. All numbers are little-endian, in the order of the fields, the two checksums last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Counts requests.
    pub(super) number: u64,
    /// Samples of all requests before it.
    pub(super) samples_before: u64,
    pub(super) samples: u64,
    /// When it was closed, in milliseconds since the epoch.
    pub(super) time: i64,
    version: Version,
    length: u32,
    checksum: u32,
}

pub(super) fn encode(request: &Request, samples_before: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + request.body.len());
    for number in [request.number, samples_before, request.samples, request.time.cast_unsigned()] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    let version = match request.version {
        Version::V1 => 1,
        Version::V2 => 2,
    };
    for number in [version, request.body.len() as u32, crc32fast::hash(&request.body)] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    let checksum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes.extend_from_slice(&request.body);
    bytes
}

/// The request whose head stands at `offset`; none when its body is damaged.
pub(super) fn read(file: &File, offset: u64, head: &Head) -> Option<Request> {
    let mut body = vec![0; head.length as usize];
    file.read_exact_at(&mut body, offset + HEAD as u64).ok()?;
    let Head { number, samples, time, version, checksum, .. } = *head;
    (crc32fast::hash(&body) == checksum).then(|| Request {
        number,
        body: body.into(),
        version,
        samples,
        time,
    })
}

/// What `sent` holds when all before this number is answered.
pub(super) fn sent(number: u64) -> [u8; SENT] {
    let mut bytes = [0; SENT];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..8]);
    bytes[8..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The number in `sent`; none when it is damaged or not yet written.
pub(super) fn read_sent(file: &File) -> Option<u64> {
    let mut bytes = [0; SENT];
    file.read_exact_at(&mut bytes, 0).ok()?;
    let number = u64::from_le_bytes(*bytes.first_chunk()?);
    (sent(number) == bytes).then_some(number)
}

// === impl Head ===

impl Head {
    /// The head at `offset` of a file with so many bytes; none when it is damaged or not whole, or its body is not.
    pub(super) fn read(file: &File, offset: u64, bytes: u64) -> Option<Self> {
        let mut head = [0; HEAD];
        file.read_exact_at(&mut head, offset).ok()?;
        let long = |at: usize| head[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let short = |at: usize| head[at..].first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        if short(HEAD - 4)? != crc32fast::hash(&head[..HEAD - 4]) {
            return None;
        }
        let read = Head {
            number: long(0)?,
            samples_before: long(8)?,
            samples: long(16)?,
            time: long(24)?.cast_signed(),
            version: if short(32)? == 1 { Version::V1 } else { Version::V2 },
            length: short(36)?,
            checksum: short(40)?,
        };
        (read.length <= MAX_BODY && offset + read.whole() <= bytes).then_some(read)
    }

    /// Bytes of it and its body.
    pub(super) fn whole(&self) -> u64 {
        HEAD as u64 + u64::from(self.length)
    }
}
