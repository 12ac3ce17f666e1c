//! A directory that changes between its listing and the opening of its files.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use prometheus::Registry;
use sidelight_runtime::progress::Heartbeats;

use super::super::{Discovery, Tree};
use super::list_logs;
use crate::checkpoint::account::Accounts;
use crate::checkpoint::store::Saved;
use crate::cluster::Store;
use crate::config::Config;
use crate::logs::container::{Container, Inventory};
use crate::logs::metrics::LogMetrics;
use crate::logs::tail::Tail;
use crate::wake::Wake;

fn tree(root: &std::path::Path) -> Tree {
    let text = format!(
        "node: n\nkubernetes: {{ source: none }}\nlogs: {{ root: {}, outputs: [ {{ forward: {{ upstreams: ['h:1'] }} }} ] }}",
        root.display()
    );
    let registry = Registry::new();
    let wake = Arc::new(Wake::new().unwrap());
    let config = Arc::new(Config::parse(&text, &|_| None).unwrap());
    let wakes = (0..config.workers).map(|_| wake.clone()).collect();
    Tree::new(Discovery {
        events: Default::default(),
        config,
        inventory: Arc::new(Inventory::new(wakes)),
        pods: Store::default(),
        saved: Arc::new(Mutex::new(Saved::default())),
        accounts: Accounts::register(&registry).unwrap(),
        metrics: LogMetrics::register(&registry).unwrap(),
        wake,
        stop: Arc::new(AtomicBool::new(false)),
        own_pod: Vec::new(),
        heartbeat: Heartbeats::new().register("discovery"),
    })
}

/// A container that was listed once, when its first file had this in it.
struct Listed {
    directory: PathBuf,
    current: PathBuf,
    tree: Tree,
    container: Arc<Container>,
    _root: tempfile::TempDir,
}

impl Listed {
    fn with(content: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("ns_pod_uid/app");
        fs::create_dir_all(&directory).unwrap();
        let current = directory.join("0.log");
        fs::write(&current, content).unwrap();
        let mut tree = tree(root.path());
        tree.rescan();
        let container = tree.discovery.inventory.containers().pop().unwrap();
        Listed { directory, current, tree, container, _root: root }
    }

    fn rotated(&self, stamp: u32) -> PathBuf {
        self.directory.join(format!("0.log.20260101-{stamp:06}"))
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.container.generations().iter().map(|generation| generation.path()).collect()
    }
}

#[test]
fn a_file_is_not_taken_before_an_older_one_that_was_renamed_since_the_listing() {
    let mut pod = Listed::with("2026-01-01T00:00:00Z stdout F first\n");
    fs::rename(&pod.current, pod.rotated(1)).unwrap();
    fs::write(&pod.current, "2026-01-01T00:00:01Z stdout P begun, \n").unwrap();
    let listed = list_logs(&pod.directory).unwrap();
    // Between the listing and the opening:
    fs::rename(&pod.current, pod.rotated(2)).unwrap();
    fs::write(&pod.current, "2026-01-01T00:00:02Z stdout F and ended\n").unwrap();
    assert_eq!(pod.tree.update_generations(&pod.container, listed), None);
    assert_eq!(pod.paths().len(), 1, "the newest file was opened before the one between");
    let listed = list_logs(&pod.directory).unwrap();
    assert_eq!(pod.tree.update_generations(&pod.container, listed), None);
    assert_eq!(pod.paths(), [pod.rotated(1), pod.rotated(2), pod.current.clone()]);
}

#[test]
fn a_file_that_was_rotated_and_removed_unseen_keeps_its_place_before_newer_ones() {
    let mut pod = Listed::with("2026-01-01T00:00:00Z stdout P begun, \n");
    let oldest = pod.container.generations().pop().unwrap();
    fs::remove_file(&pod.current).unwrap();
    fs::write(pod.rotated(2), "2026-01-01T00:00:01Z stdout F and ended\n").unwrap();
    fs::write(&pod.current, "2026-01-01T00:00:02Z stdout F another\n").unwrap();
    pod.tree.rescan();
    assert!(Arc::ptr_eq(&pod.container.generations()[0], &oldest), "{:?}", pod.paths());
    assert_eq!(pod.paths()[1..], [pod.rotated(2), pod.current.clone()]);
}

#[test]
fn a_compressed_copy_is_known_by_a_first_line_that_came_after_the_opening() {
    let mut pod = Listed::with("");
    let line = b"2026-01-01T00:00:00Z stdout F first\n";
    fs::write(&pod.current, line).unwrap();
    let compressed = fs::File::create(pod.directory.join("0.log.20260101-000001.gz")).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(compressed, flate2::Compression::fast());
    encoder.write_all(line).unwrap();
    encoder.finish().unwrap();
    fs::remove_file(&pod.current).unwrap();
    pod.tree.rescan();
    assert_eq!(pod.paths().len(), 1, "the same file was taken for two");
}

#[test]
fn a_file_that_was_truncated_and_rotated_keeps_its_place_before_the_newer_one() {
    let mut pod = Listed::with("2026-01-01T00:00:00Z stdout F first\n");
    let mut tail = Tail::new(pod.container.clone(), 1);
    tail.set_generations(pod.container.generations());
    fs::write(&pod.current, "2026-01-01T00:00:01Z stdout P begun, \n").unwrap();
    fs::rename(&pod.current, pod.rotated(1)).unwrap();
    fs::write(&pod.current, "2026-01-01T00:00:02Z stdout F and ended\n").unwrap();
    pod.tree.rescan();
    // The reader has not yet seen what is newer.
    tail.restart_truncated(&mut [], Instant::now());
    assert_eq!(pod.paths(), [pod.rotated(1), pod.current.clone()]);
}

#[test]
fn a_file_that_comes_after_one_that_cannot_be_opened_is_behind_a_gap() {
    let mut pod = Listed::with("2026-01-01T00:00:00Z stdout P begun, \n");
    fs::rename(&pod.current, pod.rotated(1)).unwrap();
    fs::create_dir(pod.rotated(2)).unwrap();
    fs::write(&pod.current, "2026-01-01T00:00:02Z stdout F another\n").unwrap();
    pod.tree.rescan();
    assert!(pod.container.problem().is_some_and(|problem| problem.contains("cannot open")));
    let generations = pod.container.generations();
    assert_eq!(generations[1].path(), pod.current);
    assert!(generations[1].is_behind_gap() && !generations[0].is_behind_gap());
}
