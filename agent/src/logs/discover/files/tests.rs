//! A directory that changes between its listing and the opening of its files.

use std::fs;
use std::io::Write;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use prometheus::Registry;
use sidelight_runtime::progress::Heartbeats;

use super::super::{Discovery, Tree};
use super::list_logs;
use crate::checkpoint::account::Accounts;
use crate::checkpoint::store::Saved;
use crate::cluster::Store;
use crate::config::Config;
use crate::logs::container::Inventory;
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

#[test]
fn a_file_is_not_taken_before_an_older_one_that_was_renamed_since_the_listing() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("ns_pod_uid/app");
    fs::create_dir_all(&directory).unwrap();
    let (current, rotated) =
        (directory.join("0.log"), |stamp: u32| directory.join(format!("0.log.20260101-{stamp:06}")));
    fs::write(&current, "2026-01-01T00:00:00Z stdout F first\n").unwrap();
    let mut tree = tree(root.path());
    tree.rescan();
    let container = tree.discovery.inventory.containers().pop().unwrap();
    fs::rename(&current, rotated(1)).unwrap();
    fs::write(&current, "2026-01-01T00:00:01Z stdout P begun, \n").unwrap();
    let listed = list_logs(&directory).unwrap();
    // Between the listing and the opening:
    fs::rename(&current, rotated(2)).unwrap();
    fs::write(&current, "2026-01-01T00:00:02Z stdout F and ended\n").unwrap();
    assert_eq!(tree.update_generations(&container, listed), None);
    assert_eq!(container.generations().len(), 1, "the newest file was opened before the one between");
    let listed = list_logs(&directory).unwrap();
    assert_eq!(tree.update_generations(&container, listed), None);
    let paths: Vec<_> = container.generations().iter().map(|generation| generation.path()).collect();
    assert_eq!(paths, [rotated(1), rotated(2), current]);
}

#[test]
fn a_file_that_was_rotated_and_removed_unseen_keeps_its_place_before_newer_ones() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("ns_pod_uid/app");
    fs::create_dir_all(&directory).unwrap();
    let (current, rotated) = (directory.join("0.log"), directory.join("0.log.20260101-000002"));
    fs::write(&current, "2026-01-01T00:00:00Z stdout P begun, \n").unwrap();
    let mut tree = tree(root.path());
    tree.rescan();
    let container = tree.discovery.inventory.containers().pop().unwrap();
    let oldest = container.generations().pop().unwrap();
    fs::remove_file(&current).unwrap();
    fs::write(&rotated, "2026-01-01T00:00:01Z stdout F and ended\n").unwrap();
    fs::write(&current, "2026-01-01T00:00:02Z stdout F another\n").unwrap();
    tree.rescan();
    let generations = container.generations();
    assert!(
        Arc::ptr_eq(&generations[0], &oldest),
        "{:?}",
        generations.iter().map(|one| one.path()).collect::<Vec<_>>()
    );
    assert_eq!((generations[1].path(), generations[2].path()), (rotated, current));
}

#[test]
fn a_compressed_copy_is_known_by_a_first_line_that_came_after_the_opening() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("ns_pod_uid/app");
    fs::create_dir_all(&directory).unwrap();
    let current = directory.join("0.log");
    fs::write(&current, "").unwrap();
    let mut tree = tree(root.path());
    tree.rescan();
    let container = tree.discovery.inventory.containers().pop().unwrap();
    let line = b"2026-01-01T00:00:00Z stdout F first\n";
    fs::write(&current, line).unwrap();
    let compressed = fs::File::create(directory.join("0.log.20260101-000001.gz")).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(compressed, flate2::Compression::fast());
    encoder.write_all(line).unwrap();
    encoder.finish().unwrap();
    fs::remove_file(&current).unwrap();
    tree.rescan();
    assert_eq!(container.generations().len(), 1, "the same file was taken for two");
}

#[test]
fn a_file_that_was_truncated_and_rotated_keeps_its_place_before_the_newer_one() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("ns_pod_uid/app");
    fs::create_dir_all(&directory).unwrap();
    let (current, rotated) = (directory.join("0.log"), directory.join("0.log.20260101-000001"));
    fs::write(&current, "2026-01-01T00:00:00Z stdout F first\n").unwrap();
    let mut tree = tree(root.path());
    tree.rescan();
    let container = tree.discovery.inventory.containers().pop().unwrap();
    let mut tail = Tail::new(container.clone(), 1);
    tail.set_generations(container.generations());
    fs::write(&current, "2026-01-01T00:00:01Z stdout P begun, \n").unwrap();
    fs::rename(&current, &rotated).unwrap();
    fs::write(&current, "2026-01-01T00:00:02Z stdout F and ended\n").unwrap();
    tree.rescan();
    // The reader has not yet seen what is newer.
    tail.restart_truncated(&mut []);
    let paths: Vec<_> = container.generations().iter().map(|generation| generation.path()).collect();
    assert_eq!(paths, [rotated, current]);
}

#[test]
fn a_file_that_comes_after_one_that_cannot_be_opened_is_behind_a_gap() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("ns_pod_uid/app");
    fs::create_dir_all(&directory).unwrap();
    let (current, rotated) =
        (directory.join("0.log"), |stamp: u32| directory.join(format!("0.log.20260101-{stamp:06}")));
    fs::write(&current, "2026-01-01T00:00:00Z stdout P begun, \n").unwrap();
    let mut tree = tree(root.path());
    tree.rescan();
    fs::rename(&current, rotated(1)).unwrap();
    fs::create_dir(rotated(2)).unwrap();
    fs::write(&current, "2026-01-01T00:00:02Z stdout F another\n").unwrap();
    tree.rescan();
    let container = tree.discovery.inventory.containers().pop().unwrap();
    assert!(container.problem().is_some_and(|problem| problem.contains("cannot open")));
    let generations = container.generations();
    assert_eq!(generations[1].path(), current);
    assert!(generations[1].is_behind_gap() && !generations[0].is_behind_gap());
}
