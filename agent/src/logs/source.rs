//! The bytes of one log file by offset, plain or gzip.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use flate2::read::MultiGzDecoder;

/// An open log file. Offsets are in uncompressed bytes.
#[derive(Debug)]
pub struct Source {
    file: File,
    gzip: Option<Mutex<Vec<Inflater>>>,
}

/// Inflaters of one file at most: as many outputs read it on without inflating it from its start again and again.
const MAX_INFLATERS: usize = 4;

/// Inflates front to back.
#[derive(Debug)]
struct Inflater {
    decoder: MultiGzDecoder<FromStart>,
    offset: u64,
}

/// Reads a shared descriptor by offset, so that its file position is nobody's business.
#[derive(Debug)]
struct FromStart {
    file: File,
    offset: u64,
}

// === impl Source ===

impl Source {
    /// A plain file.
    pub fn plain(file: File) -> Self {
        Source { file, gzip: None }
    }

    /// A gzip file.
    pub fn gzip(file: File) -> Self {
        Source { file, gzip: Some(Mutex::default()) }
    }

    /// Whether the file is compressed: it will not grow.
    pub fn is_gzip(&self) -> bool {
        self.gzip.is_some()
    }

    /// Fills `buffer` from `offset` on; less than its length means that the file ends there for now.
    ///
    /// # Errors
    /// The system's, or the inflater's for a damaged gzip file.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        // A short read of a regular file is its end: no second call to see it.
        let Some(inflaters) = &self.gzip else { return self.file.read_at(buffer, offset) };
        let mut inflaters = inflaters.lock().unwrap_or_else(PoisonError::into_inner);
        let before = inflaters.iter().enumerate().filter(|(_, inflater)| inflater.offset <= offset);
        let mut inflater = match before.max_by_key(|(_, inflater)| inflater.offset).map(|(index, _)| index) {
            Some(nearest) => inflaters.remove(nearest),
            None => Inflater::new(&self.file)?,
        };
        // One that fails does not come back: where it stands is not known any more.
        let read = inflater.read_at(buffer, offset)?;
        inflaters.truncate(MAX_INFLATERS - 1);
        inflaters.insert(0, inflater);
        Ok(read)
    }

    /// When it was last written.
    pub fn modified(&self) -> Option<SystemTime> {
        self.file.metadata().ok()?.modified().ok()
    }

    /// Size and number of links. A gzip file's size is what its trailer says (RFC 1952, ISIZE): exact for the one
    /// member that the kubelet writes, and corrected by whoever reads to the end.
    ///
    /// # Errors
    /// The system's.
    pub fn stat(&self) -> io::Result<(u64, u64)> {
        let metadata = self.file.metadata()?;
        let mut size = metadata.len();
        if self.is_gzip() {
            let mut trailer = [0; 4];
            self.file.read_exact_at(&mut trailer, size.saturating_sub(4))?;
            size = u64::from(u32::from_le_bytes(trailer));
        }
        Ok((size, metadata.nlink()))
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

// === impl Inflater ===

impl Inflater {
    fn new(file: &File) -> io::Result<Self> {
        let from_start = FromStart { file: file.try_clone()?, offset: 0 };
        Ok(Inflater { decoder: MultiGzDecoder::new(from_start), offset: 0 })
    }

    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.offset += io::copy(&mut self.decoder.by_ref().take(offset - self.offset), &mut io::sink())?;
        if self.offset < offset {
            return Ok(0);
        }
        let mut read = 0;
        while read < buffer.len() {
            match self.decoder.read(&mut buffer[read..]) {
                Ok(0) => break,
                Ok(more) => read += more,
                // What came before the damage is good; the next call will meet it.
                Err(_) if read > 0 => break,
                Err(error) => return Err(error),
            }
        }
        self.offset += read as u64;
        Ok(read)
    }
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_gzip_file_is_read_at_any_offset_and_over_several_members() {
        let text: Vec<u8> = (0..50_000u32).flat_map(|n| n.to_string().into_bytes()).collect();
        let mut compressed = Vec::new();
        for member in text.chunks(100_000) {
            let mut encoder = flate2::write::GzEncoder::new(&mut compressed, flate2::Compression::fast());
            encoder.write_all(member).unwrap();
            encoder.finish().unwrap();
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&compressed).unwrap();
        let source = Source::gzip(file);
        let mut buffer = vec![0; 1000];
        for offset in [0, 500, 150_000, 99_900, text.len() - 10, text.len() + 5] {
            let read = source.read_at(&mut buffer, offset as u64).unwrap();
            let expected = text.get(offset..).unwrap_or_default();
            assert_eq!(&buffer[..read], &expected[..expected.len().min(1000)], "at {offset}");
        }
    }
}
