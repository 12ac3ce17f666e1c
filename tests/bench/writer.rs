//! Containers that write numbered lines at a rate.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sidelight_tests::kubelet::rfc3339;

use crate::node::{Node, pod_name};

/// How often lines are written.
const TICK: Duration = Duration::from_millis(1);
/// A line without its head, about.
const TEXT: usize = 200;

/// The file that a container runtime writes to, which may be replaced while it does.
pub(crate) struct Log {
    /// Its path, which stays.
    pub(crate) path: PathBuf,
    file: Mutex<File>,
}

/// One container.
pub(crate) struct Writer {
    /// What its lines are numbered by.
    pub(crate) pod: String,
    /// The number of the next line.
    pub(crate) next: u64,
    /// Where it writes to.
    pub(crate) log: Arc<Log>,
    buffer: Vec<u8>,
}

// === impl Log ===

impl Log {
    fn new(path: PathBuf) -> io::Result<Self> {
        let file = Mutex::new(append(&path)?);
        Ok(Log { path, file })
    }

    /// Goes on in a new file, as the runtime does when the kubelet has renamed the old one.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn reopen(&self) -> io::Result<()> {
        *self.file.lock().unwrap() = append(&self.path)?;
        Ok(())
    }
}

fn append(path: &PathBuf) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

// === impl Writer ===

impl Writer {
    /// Writes lines at once, all with the present time.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn lines(&mut self, count: u64) -> io::Result<()> {
        if count == 0 {
            return Ok(());
        }
        self.buffer.clear();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let head = format!("{} stdout F seq={}:", rfc3339(now.as_nanos() as u64), self.pod);
        let filler = " lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod".repeat(3);
        let filler = format!("{}\n", &filler[..TEXT - self.pod.len() - 12]);
        for _ in 0..count {
            self.buffer.extend_from_slice(head.as_bytes());
            write!(self.buffer, "{}", self.next)?;
            self.buffer.extend_from_slice(filler.as_bytes());
            self.next += 1;
        }
        self.log.file.lock().unwrap().write_all(&self.buffer)
    }
}

/// A writer for each container of a node, with an empty file. Numbers are by pod: they identify a line where each pod has
/// one container.
///
/// # Errors
/// The system's.
pub(crate) fn for_all(node: &Node) -> io::Result<Vec<Writer>> {
    let writer = |(pod, container)| {
        let log = Arc::new(Log::new(node.log(pod, container))?);
        Ok(Writer { pod: pod_name(pod), next: 0, log, buffer: Vec::new() })
    };
    node.all().map(writer).collect()
}

/// Lets all write for a while, together so many lines a second. Gives the rate that was reached.
///
/// # Errors
/// The system's.
pub(crate) fn write_at(writers: &mut [Writer], rate: u64, time: Duration) -> io::Result<f64> {
    let begun = Instant::now();
    let (mut written, mut turn) = (0, 0);
    while begun.elapsed() < time {
        let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64 - written;
        let (each, more) = (due / writers.len() as u64, due % writers.len() as u64);
        let count = writers.len();
        for offset in 0..count {
            let index = (turn + offset) % count;
            writers[index].lines(each + u64::from((offset as u64) < more))?;
        }
        turn = (turn + more as usize) % count;
        written += due;
        std::thread::sleep(TICK);
    }
    Ok(written as f64 / begun.elapsed().as_secs_f64())
}

/// How many lines there are.
pub(crate) fn written(writers: &[Writer]) -> u64 {
    writers.iter().map(|writer| writer.next).sum()
}
