//! The checkpoint file: atomic, additive, checksummed.
//!
//! One JSON object a line: a head, one line for each generation, a foot with the CRC-32 of everything before it.
//! Written to a temporary file, synced, renamed; the file before stays as `checkpoints.previous`. A file that is
//! damaged is passed over for the previous one; without either, everything is read again from the start.
//! Fields and outputs that this version does not know are written back as they were.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::logs::generation::{Generation, Offsets, Unknown};

const FILE: &str = "checkpoints";
const PREVIOUS: &str = "checkpoints.previous";
const VERSION: u64 = 1;

/// The directory of one agent, locked for as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another agent has it.
    #[error("{path} is held by {holder}; waiting until it ends")]
    Held {
        /// The directory.
        path: PathBuf,
        /// What the other has written about itself.
        holder: String,
    },
    /// The system refuses.
    #[error("cannot use data_dir {path}: {source}; it must be a writable directory")]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What the last run has left.
#[derive(Debug, Default)]
pub struct Saved {
    generations: HashMap<Key, SavedGeneration>,
    outputs: Vec<String>,
    /// Fields of the head that this version does not know.
    others: Map<String, Value>,
    /// There were checkpoints, and none is whole: every output is taken for known, so that it reads from the start and
    /// skips nothing.
    damaged: bool,
}

/// (pod UID, container, restart, identity, inode).
type Key = (String, String, u32, String, u64);

/// One generation as a checkpoint has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedGeneration {
    /// Namespace.
    pub namespace: String,
    /// Pod name.
    pub pod: String,
    /// Pod UID as in the path.
    pub uid: String,
    /// Container name.
    pub container: String,
    /// Restart count of the container.
    pub restart: u32,
    /// Identity: a hash of the first line.
    pub first_line: String,
    /// Of a file that an app writes by itself, whose first line need not be unlike that of others; else 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub inode: u64,
    /// Where that file was seen last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Uncompressed bytes when last seen.
    pub size: u64,
    /// By output name, up to where every line is acknowledged.
    pub outputs: BTreeMap<String, u64>,
    /// For each stream and for lines of none, where that is not the same.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub streams: BTreeMap<String, Offsets>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    sidelight_checkpoints: u64,
    outputs: Vec<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
struct Foot {
    generations: usize,
    crc32: u32,
}

// === impl DataDir ===

impl DataDir {
    /// Creates the directory if it is missing and locks it.
    ///
    /// # Errors
    /// `Held` while another process has the lock: try again later; `Unusable` otherwise.
    pub fn lock(path: &Path, holder: &str) -> Result<Self, DataDirError> {
        let unusable = |source| DataDirError::Unusable { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(unusable)?;
        let lock_path = path.join("lock");
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(unusable)?;
        if let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if error != Errno::WOULDBLOCK {
                return Err(unusable(error.into()));
            }
            let holder = fs::read_to_string(&lock_path).unwrap_or_default();
            return Err(DataDirError::Held { path: path.to_owned(), holder: holder.trim().to_owned() });
        }
        // On a full disk nobody can say who holds the directory; that is no reason not to start.
        let _ = lock.set_len(0).and_then(|()| writeln!(lock, "{holder}"));
        Ok(DataDir { path: path.to_owned(), _lock: lock })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads what the last run has left: the newest file that is whole.
    pub fn load(&self) -> Saved {
        let mut damaged = false;
        for name in [FILE, PREVIOUS] {
            let path = self.path.join(name);
            match fs::read(&path) {
                Ok(bytes) => match parse(&bytes) {
                    Some(saved) => return saved,
                    None => {
                        damaged = true;
                        tracing::error!(path = %path.display(), "the checkpoint file is damaged; trying the one before");
                    }
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    damaged = true;
                    tracing::error!(path = %path.display(), %error, "cannot read the checkpoint file");
                }
            }
        }
        if damaged {
            tracing::error!("no checkpoint file is whole: every log file is read again from its start");
        }
        Saved { damaged, ..Saved::default() }
    }

    /// Writes the positions of all generations; what `kept` has of outputs and fields this run does not know stays.
    ///
    /// # Errors
    /// The system's; the file before is untouched then.
    pub fn save(&self, bytes: &[u8]) -> io::Result<()> {
        let (path, previous, temporary) =
            (self.path.join(FILE), self.path.join(PREVIOUS), self.path.join("checkpoints.tmp"));
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        match fs::rename(&path, &previous) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::rename(&temporary, &path)?;
        File::open(&self.path)?.sync_all()
    }
}

// === impl Saved ===

impl Saved {
    /// Whether something is saved for a generation.
    pub fn has(&self, generation: &Generation) -> bool {
        key(generation).is_some_and(|key| self.generations.contains_key(&key))
    }

    /// Takes what is saved for a generation, once it has an identity. A file that is shorter than it was is another one, although
    /// it begins with the same line.
    pub fn take(&mut self, generation: &Generation) -> Option<SavedGeneration> {
        let key = key(generation)?;
        let is_plain = generation.container().is_plain();
        let is_shorter = |saved: &SavedGeneration| is_plain && generation.size() < saved.size;
        if self.generations.get(&key).is_some_and(is_shorter) {
            return None;
        }
        self.generations.remove(&key)
    }

    /// Takes what is saved of the file at `path` that this one is a copy of, which was truncated since: that nobody has
    /// claimed it says so.
    pub fn take_original(&mut self, copy: &Generation, path: &Path) -> Option<SavedGeneration> {
        let identity = copy.identity()?.to_string();
        let is_original = |_: &Key, saved: &mut SavedGeneration| {
            saved.first_line == identity
                && saved.file.as_deref() == Some(path)
                && saved.uid == copy.container().uid
                && copy.size() >= saved.size
        };
        self.generations.extract_if(is_original).next().map(|(_, saved)| saved)
    }

    /// Takes what no generation has claimed and of which this says that the disk does not have it any more.
    pub fn take_missing(&mut self, is_missing: impl Fn(&SavedGeneration) -> bool) -> Vec<SavedGeneration> {
        self.generations.extract_if(|_, saved| is_missing(saved)).map(|(_, saved)| saved).collect()
    }

    /// How many generations nobody has claimed.
    pub fn unclaimed(&self) -> usize {
        self.generations.len()
    }

    /// Whether an output of this name has run before.
    pub fn knows_output(&self, name: &str) -> bool {
        self.damaged || self.outputs.iter().any(|known| known == name)
    }

    /// What a checkpoint's bytes say; none when they are damaged.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        parse(bytes)
    }
}

// === impl SavedGeneration ===

impl SavedGeneration {
    /// Up to where an output's receiver has acknowledged the lines of each stream. A version that knows of no streams
    /// writes theirs back as they were: then the other number is the greater one.
    pub fn offsets(&self, output: &str) -> Option<Offsets> {
        let least = *self.outputs.get(output)?;
        let streams = self.streams.get(output).copied().unwrap_or_default();
        Some(streams.map(|offset| offset.max(least)))
    }

    /// What this run does not know, if these are its outputs.
    pub fn unknown_to(self, known: &[&str]) -> Unknown {
        let SavedGeneration { mut outputs, mut streams, others: fields, .. } = self;
        outputs.retain(|name, _| !known.contains(&name.as_str()));
        streams.retain(|name, _| !known.contains(&name.as_str()));
        Unknown { outputs, streams, fields }
    }

    /// What is to be saved of a generation; none before its first line is whole, and where no output takes anything.
    fn of(generation: &Generation, outputs: &[String]) -> Option<Self> {
        let identity = generation.identity()?;
        let Unknown { outputs: mut least, mut streams, fields: others } = generation.unknown().clone();
        for (index, name) in outputs.iter().enumerate() {
            let (acked, by_stream) = (generation.acked(index), generation.acked_by_stream(index));
            if !generation.is_taken(index) && by_stream == [0; 3] {
                continue;
            }
            least.insert(name.clone(), acked);
            if by_stream != [acked; 3] {
                streams.insert(name.clone(), by_stream);
            }
        }
        let path = generation.container();
        (!least.is_empty()).then(|| SavedGeneration {
            namespace: path.namespace.clone(),
            pod: path.pod.clone(),
            uid: path.uid.clone(),
            container: path.container.clone(),
            restart: generation.restart,
            first_line: identity.to_string(),
            inode: inode(generation),
            file: path.is_plain().then(|| generation.path()),
            size: generation.size(),
            outputs: least,
            streams,
            others,
        })
    }
}

fn key(generation: &Generation) -> Option<Key> {
    let path = generation.container();
    let identity = generation.identity()?.to_string();
    Some((path.uid.clone(), path.container.clone(), generation.restart, identity, inode(generation)))
}

/// What tells the files of an app apart, with their first lines.
fn inode(generation: &Generation) -> u64 {
    if generation.container().is_plain() { generation.inode().1 } else { 0 }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Renders the checkpoint file of these generations. `outputs` are this run's, by index; what `unclaimed` has, outputs
/// and generations of earlier runs, is written back as it was.
pub fn render<'a>(
    generations: impl Iterator<Item = &'a Generation>,
    outputs: &[String],
    unclaimed: &Saved,
) -> Vec<u8> {
    let mut known = outputs.to_vec();
    known.extend(unclaimed.outputs.iter().filter(|name| !outputs.contains(name)).cloned());
    let head = Head { sidelight_checkpoints: VERSION, outputs: known, others: unclaimed.others.clone() };
    let mut bytes = Vec::new();
    push_line(&mut bytes, &head);
    let mut count = 0;
    let mut known = HashSet::new();
    for generation in generations {
        let Some(saved) = SavedGeneration::of(generation, outputs) else { continue };
        push_line(&mut bytes, &saved);
        known.extend(key(generation));
        count += 1;
    }
    // Of two under one key the other was truncated, and is not to be taken for this one.
    for (_, saved) in unclaimed.generations.iter().filter(|(key, _)| !known.contains(*key)) {
        push_line(&mut bytes, saved);
        count += 1;
    }
    let foot = Foot { generations: count, crc32: crc32fast::hash(&bytes) };
    push_line(&mut bytes, &foot);
    bytes
}

fn push_line(bytes: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(&mut *bytes, value).expect("maps with text keys are always JSON");
    bytes.push(b'\n');
}

fn parse(bytes: &[u8]) -> Option<Saved> {
    let body = bytes.strip_suffix(b"\n")?;
    let foot_start = memchr::memrchr(b'\n', body)? + 1;
    let foot: Foot = serde_json::from_slice(&body[foot_start..]).ok()?;
    if foot.crc32 != crc32fast::hash(&bytes[..foot_start]) {
        return None;
    }
    let mut lines = body[..foot_start].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let head: Head = serde_json::from_slice(lines.next()?).ok()?;
    let mut generations = HashMap::new();
    for line in lines {
        // A newer version may write lines of another kind: they are none of ours.
        let Ok(saved) = serde_json::from_slice::<SavedGeneration>(line) else { continue };
        let (uid, container) = (saved.uid.clone(), saved.container.clone());
        let key = (uid, container, saved.restart, saved.first_line.clone(), saved.inode);
        generations.insert(key, saved);
    }
    Some(Saved { generations, outputs: head.outputs, others: head.others, damaged: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_version_has_written_is_written_back() {
        let head = r#"{"sidelight_checkpoints":1,"outputs":["old"],"newer":[1]}"#;
        let line = r#"{"namespace":"n","pod":"p","uid":"u","container":"c","restart":0,"first_line":"0","size":9,"outputs":{"old":7},"streams":{"old":[7,9,9]},"newer":{"a":null}}"#;
        let mut file = format!("{head}\n{line}\n").into_bytes();
        let foot = Foot { generations: 1, crc32: crc32fast::hash(&file) };
        push_line(&mut file, &foot);
        let again = render(std::iter::empty(), &[], &Saved::parse(&file).unwrap());
        assert_eq!(String::from_utf8(again), String::from_utf8(file));
    }
}
