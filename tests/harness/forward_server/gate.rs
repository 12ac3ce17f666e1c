//! What the faults let through.

use std::io::{self, Read, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shared;

pub(super) trait Socket: Read + Write {}
impl<T: Read + Write> Socket for T {}

/// The socket as the faults let it through.
pub(super) struct Gate<'a> {
    pub(super) socket: Box<dyn Socket>,
    pub(super) shared: &'a Shared,
}

impl Read for Gate<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let faults = &self.shared.faults;
        let cut_after = faults.cut_after.load(Ordering::SeqCst) as usize;
        let read = self.socket.read(buffer)?;
        // Behind the read: what was waited for inside the kernel stalls too.
        while faults.stall.load(Ordering::SeqCst) && !self.shared.stopping.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        if cut_after > 0 && read > 0 {
            let left = cut_after.saturating_sub(read);
            faults.cut_after.store(left as u64, Ordering::SeqCst);
            if left == 0 {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
        Ok(read)
    }
}
