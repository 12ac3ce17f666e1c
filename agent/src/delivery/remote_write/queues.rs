//! The queues of all outputs, over reloads and restarts.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::queue::{Pipeline, Queue};
use super::spool::Spool;

/// Below `data_dir`.
const FOLDER: &str = "spool";

/// An output that wants a queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Where its samples belong; a queue is not passed on to another place.
    pub destination: String,
    /// Bytes that it may have on disk.
    pub spool: u64,
}

/// The queues by folder.
#[derive(Debug, Default)]
pub struct Queues(Mutex<HashMap<String, Arc<Queue>>>);

// === impl Wanted ===

impl Wanted {
    /// The folder of its spool: its name, as far as that may be one, and a hash of all that makes it another queue.
    fn folder(&self) -> String {
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
        let name: String =
            self.name.chars().map(|letter| if is_plain(letter) { letter } else { '_' }).collect();
        let hash = Sha256::digest(format!("{}\0{}", self.name, self.destination));
        let hash: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("{name:.40}-{hash}")
    }
}

// === impl Queues ===

impl Queues {
    /// Keeps the queues of these outputs, and makes those that are missing, each for a pipeline that begins; gives them in
    /// the same order, and how many samples were in those of outputs that are no more.
    pub fn of(
        &self,
        data_dir: &Path,
        wanted: &[Wanted],
        make: impl Fn(&str, PathBuf) -> Queue,
    ) -> (Vec<(Arc<Queue>, Pipeline)>, u64) {
        let root = data_dir.join(FOLDER);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *all);
        let mut queues = Vec::new();
        for output in wanted {
            let folder = output.folder();
            let queue =
                before.remove(&folder).unwrap_or_else(|| Arc::new(make(&output.name, root.join(&folder))));
            queues.push((queue.clone(), queue.open(output.spool)));
            all.insert(folder, queue);
        }
        let lost: u64 = before.values().map(|queue| queue.end()).sum();
        (queues, lost + remove_others(&root, all.keys().map(String::as_str).collect()))
    }
}

/// Removes the spools of outputs that are no more; gives how many samples they had.
fn remove_others(root: &Path, kept: HashSet<&str>) -> u64 {
    let Ok(entries) = fs::read_dir(root) else { return 0 };
    let mut samples = 0;
    for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
        if entry.file_name().to_str().is_none_or(|name| kept.contains(name)) {
            continue;
        }
        samples += Spool::open(&entry.path(), u64::MAX).map_or(0, |spool| spool.samples());
        let _ = fs::remove_dir_all(entry.path());
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::super::Version;
    use super::super::queue::Next;
    use super::super::queue::tests::lost;
    use super::*;

    fn queue(_: &str, folder: PathBuf) -> Queue {
        Queue::new(100, folder, lost())
    }

    fn wanted(name: &str, destination: &str) -> Wanted {
        Wanted { name: name.to_owned(), destination: destination.to_owned(), spool: 1 << 20 }
    }

    /// Moves what is in memory to the disk, as an output does.
    fn spill((queue, _): &(Arc<Queue>, Pipeline)) {
        let mut spool = None;
        queue.open_spool("a", &mut spool);
        queue.spill(&mut spool).unwrap();
    }

    #[test]
    fn a_queue_outlives_a_reload_of_its_output_and_its_spool_a_restart() {
        let data = tempfile::tempdir().unwrap();
        let [a, b, elsewhere] = [wanted("a", "x"), wanted("b/ä", "x"), wanted("a", "y")];
        let queues = Queues::default();
        let (first, _) = queues.of(data.path(), &[a.clone(), b.clone()], queue);
        for ((queue, pipeline), samples) in first.iter().zip([1, 2]) {
            queue.push(vec![0; 40].into(), Version::V1, samples);
            queue.close(*pipeline);
        }
        spill(&first[1]);
        let (second, lost) = queues.of(data.path(), &[b.clone(), a.clone()], queue);
        assert_eq!((second[0].0.samples(), second[1].0.samples(), lost), (2, 1, 0));
        second[1].0.push(vec![0; 40].into(), Version::V1, 3);
        let (waits, pipeline) = &second[1];
        assert!(matches!(waits.first(*pipeline), Next::Request(oldest) if oldest.samples == 1));
        spill(&second[1]);
        drop((first, queues));
        let restarted = Queues::default();
        let (third, lost) = restarted.of(data.path(), &[a], queue);
        spill(&third[0]);
        assert_eq!((third[0].0.samples(), lost), (1 + 3, 2), "b is no more");
        third[0].0.push(vec![0; 40].into(), Version::V1, 5);
        let (fourth, lost) = restarted.of(data.path(), &[elsewhere], queue);
        assert_eq!((fourth[0].0.samples(), lost), (0, 9), "samples go where they belong, or nowhere");
    }

    #[test]
    fn without_a_spool_what_waits_stays_in_memory() {
        let data = tempfile::tempdir().unwrap();
        let none = Wanted { spool: 0, ..wanted("a", "x") };
        let (queues, _) = Queues::default().of(data.path(), &[none], queue);
        queues[0].0.push(vec![0; 40].into(), Version::V1, 1);
        spill(&queues[0]);
        assert_eq!((queues[0].0.samples_in_memory(), data.path().join(FOLDER).exists()), (1, false));
    }
}
