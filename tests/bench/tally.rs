//! What a receiver knows about the records that arrived.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use memchr::memmem;

/// How far a receiver looks into records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Not at all, if the message says how many there are.
    Count,
    /// For their numbers, in the text.
    Numbers,
    /// Decodes them: each must be under the pod that it names.
    Verify,
    /// For their times: how old they are when they arrive.
    Times,
}

/// The numbers of one pod.
#[derive(Default)]
struct Seen {
    times: Vec<u8>,
    distinct: u64,
}

/// Counts what arrives.
pub(crate) struct Tally {
    /// How far to look.
    pub(crate) look: Look,
    records: AtomicU64,
    strays: AtomicU64,
    fault: Mutex<Option<String>>,
    seen: Mutex<HashMap<String, Seen>>,
    ages: Mutex<Vec<f64>>,
}

// === impl Tally ===

impl Tally {
    pub(crate) fn new(look: Look) -> Self {
        Tally {
            look,
            records: AtomicU64::new(0),
            strays: AtomicU64::new(0),
            fault: Mutex::default(),
            seen: Mutex::default(),
            ages: Mutex::default(),
        }
    }

    /// Records so far, repeated ones as well.
    pub(crate) fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// So many records have arrived.
    pub(crate) fn add(&self, records: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
    }

    /// Whether it is of interest what stands in records.
    pub(crate) fn looks(&self) -> bool {
        self.look != Look::Count
    }

    /// A record of a pod; under another's name it counts as one that came too often.
    pub(crate) fn number(&self, pod: &str, number: usize, well_named: bool) {
        count(&mut self.seen.lock().unwrap(), pod, number, if well_named { 1 } else { 2 });
    }

    /// Finds the numbers in bytes in which records are text, whatever is around them. Gives how many there are.
    pub(crate) fn scan(&self, bytes: &[u8]) -> u64 {
        let mut seen = self.seen.lock().unwrap();
        let mut records = 0;
        for start in memmem::find_iter(bytes, "seq=") {
            records += 1;
            let rest = &bytes[start + 4..];
            if self.looks()
                && let Some((pod, number)) = sequence(&rest[..rest.len().min(64)])
            {
                count(&mut seen, pod, number, 1);
            }
        }
        records
    }

    /// Records that are so many seconds old.
    pub(crate) fn aged(&self, ages: &[f64]) {
        self.ages.lock().unwrap().extend_from_slice(ages);
    }

    /// Takes the ages so far.
    pub(crate) fn take_ages(&self) -> Vec<f64> {
        std::mem::take(&mut self.ages.lock().unwrap())
    }

    /// A record without a number: a part of one.
    pub(crate) fn stray(&self) {
        self.strays.fetch_add(1, Ordering::Relaxed);
    }

    /// A message could not be read.
    pub(crate) fn broken(&self, error: &io::Error) {
        self.fault.lock().unwrap().get_or_insert(error.to_string());
    }

    /// What was wrong with the first message that could not be read.
    pub(crate) fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap().clone()
    }

    /// How many records did not arrive exactly once and whole, if each pod has numbers below `records`.
    pub(crate) fn wrong(&self, pods: impl Iterator<Item = String>, records: u64) -> u64 {
        let seen = self.seen.lock().unwrap();
        let once = |pod: String| {
            seen.get(&pod).map_or(0, |seen| seen.times.iter().filter(|times| **times == 1).count() as u64)
        };
        pods.map(|pod| records.abs_diff(once(pod))).sum::<u64>() + self.strays.load(Ordering::Relaxed)
    }

    /// How many different numbers of a pod have arrived.
    pub(crate) fn distinct(&self, pod: &str) -> u64 {
        self.seen.lock().unwrap().get(pod).map_or(0, |seen| seen.distinct)
    }
}

fn count(seen: &mut HashMap<String, Seen>, pod: &str, number: usize, times: u8) {
    if !seen.contains_key(pod) {
        seen.insert(pod.to_owned(), Seen::default());
    }
    let seen = seen.get_mut(pod).unwrap();
    if seen.times.len() <= number {
        seen.times.resize(number + 1, 0);
    }
    seen.distinct += u64::from(seen.times[number] == 0);
    seen.times[number] = seen.times[number].saturating_add(times);
}

/// `POD:NUMBER`, and what comes behind it.
fn sequence(text: &[u8]) -> Option<(&str, usize)> {
    let colon = memchr::memchr(b':', text)?;
    let digits = text[colon + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = std::str::from_utf8(&text[colon + 1..colon + 1 + digits]).ok()?.parse().ok()?;
    Some((std::str::from_utf8(&text[..colon]).ok()?, number))
}

/// Bytes without their compression, which is named as Forward and HTTP do.
///
/// # Errors
/// When they are not compressed that way.
pub(crate) fn unpacked<'a>(bytes: &'a [u8], compression: &str) -> io::Result<Cow<'a, [u8]>> {
    match compression {
        "gzip" => {
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut plain)?;
            Ok(plain.into())
        }
        "zstd" => Ok(zstd::stream::decode_all(bytes)?.into()),
        "" => Ok(bytes.into()),
        other => Err(io::Error::other(format!("compressed as {other}"))),
    }
}
