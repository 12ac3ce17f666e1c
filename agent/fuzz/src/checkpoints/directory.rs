//! A data directory with two checkpoint files.

use std::fs;

use sidelight_agent::checkpoint::store::{DataDir, Saved, render};

/// Only the file before names this output.
const BEFORE: &str = "the output of the file before";

/// `data` is loaded where it is whole, and the file before where it is not.
pub(super) fn is_loaded_or_the_one_before(data: &[u8]) {
    let temporary = tempfile::tempdir().expect("a writable directory");
    let directory = DataDir::lock(temporary.path(), "the fuzzer").expect("a directory of our own");
    let before = render(std::iter::empty(), &[BEFORE.to_owned()], &Saved::default());
    fs::write(temporary.path().join("checkpoints"), data).expect("a writable directory");
    fs::write(temporary.path().join("checkpoints.previous"), before).expect("a writable directory");
    let mut loaded = directory.load();
    match Saved::parse(data) {
        Some(saved) => assert_eq!(super::positions(&loaded), super::positions(&saved)),
        None => {
            assert!(loaded.knows_output(BEFORE) && !loaded.knows_output("another"));
            assert!(loaded.take_missing(|_| true).is_empty());
        }
    }
}
