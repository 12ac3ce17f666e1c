//! Restarts, damage, and too much.

use super::*;
use crate::delivery::remote_write::Version;

const BODY: usize = 1_000;

/// Of as many samples as its number, counted from one.
fn request(number: u64) -> Request {
    let body = vec![number as u8; BODY].into();
    Request { number, body, version: Version::V2, samples: number + 1, time: number as i64 }
}

/// In a folder of its own, with these requests.
fn filled(numbers: std::ops::Range<u64>, limit: u64) -> (tempfile::TempDir, Spool) {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), limit).unwrap();
    for number in numbers {
        assert_eq!(spool.push(&request(number)).unwrap(), 0);
    }
    (folder, spool)
}

/// Takes all there is: the numbers.
fn drain(spool: &mut Spool) -> Vec<u64> {
    let mut numbers = Vec::new();
    while let Some(first) = spool.first() {
        assert_eq!(first, request(first.number));
        assert!(spool.done(first.number));
        numbers.push(first.number);
    }
    numbers
}

/// Samples of these requests.
fn samples(numbers: impl IntoIterator<Item = u64>) -> u64 {
    numbers.into_iter().map(|number| number + 1).sum()
}

fn paths(folder: &Path) -> Vec<PathBuf> {
    segments(folder).unwrap().into_iter().map(|segment| segment.path).collect()
}

#[test]
fn what_is_pushed_comes_out_in_its_order_over_segments_and_restarts() {
    let (folder, mut spool) = filled(0..150, 1 << 20);
    assert_eq!((spool.samples(), paths(folder.path()).len()), (samples(0..150), 3));
    for number in 0..70 {
        assert_eq!(spool.first().map(|request| request.number), Some(number));
        assert!(spool.done(number) && !spool.done(number));
    }
    drop(spool);
    let mut spool = Spool::open(folder.path(), 1 << 20).unwrap();
    assert_eq!(
        (spool.next_number(), spool.samples(), spool.oldest()),
        (150, samples(70..150), Some((70, 70)))
    );
    spool.push(&request(150)).unwrap();
    assert_eq!(drain(&mut spool), (70..=150).collect::<Vec<_>>());
    assert!(spool.samples() == 0 && spool.bytes() == 0 && paths(folder.path()).is_empty());
    drop(spool);
    let spool = Spool::open(folder.path(), 1 << 20).unwrap();
    assert_eq!((spool.next_number(), spool.bytes()), (151, 0));
}

#[test]
fn the_oldest_segment_makes_room_and_its_samples_are_counted() {
    let (folder, mut spool) = filled(0..62, 128 << 10);
    assert_eq!(spool.first().map(|request| request.number), Some(0));
    assert!(spool.done(0));
    let gone: u64 = (62..200).map(|number| spool.push(&request(number)).unwrap()).sum();
    assert!(!spool.done(1), "it had to go");
    assert!(spool.bytes() <= 128 << 10);
    let left = drain(&mut spool);
    assert_eq!(gone, samples(1..left[0]));
    assert_eq!(left, (left[0]..200).collect::<Vec<_>>());
    drop(folder);
}

#[test]
fn a_torn_end_is_cut_off_and_the_next_request_comes_behind_what_is_whole() {
    let (folder, spool) = filled(0..3, 1 << 20);
    drop(spool);
    let path = &paths(folder.path())[0];
    let whole = fs::metadata(path).unwrap().len();
    for torn in [1, 47, 48, 500] {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        let record = record::encode(&request(3), samples(0..3));
        file.write_all_at(&record[..torn], whole).unwrap();
        let mut spool = Spool::open(folder.path(), 1 << 20).unwrap();
        assert_eq!((spool.next_number(), spool.bytes(), spool.samples()), (3, whole, samples(0..3)));
        assert_eq!(spool.first(), Some(request(0)));
    }
    let mut spool = Spool::open(folder.path(), 1 << 20).unwrap();
    spool.push(&request(3)).unwrap();
    assert_eq!(drain(&mut spool), [0, 1, 2, 3]);
}

#[test]
fn a_damaged_request_is_passed_and_a_damaged_head_takes_the_rest_of_its_segment_and_both_are_counted() {
    let record = 48 + BODY as u64;
    for (offset, lost) in [(2 * record + 100, 2..3), (2 * record + 20, 2..62)] {
        let (folder, spool) = filled(0..100, 1 << 20);
        drop(spool);
        let first = &paths(folder.path())[0];
        assert_eq!(fs::metadata(first).unwrap().len(), 62 * record);
        OpenOptions::new().write(true).open(first).unwrap().write_all_at(&[0xff], offset).unwrap();
        let mut spool = Spool::open(folder.path(), 1 << 20).unwrap();
        let left = drain(&mut spool);
        assert_eq!(left, (0..100).filter(|number| !lost.contains(number)).collect::<Vec<_>>());
        assert_eq!((spool.take_damaged(), spool.take_damaged()), (samples(lost), 0));
    }
}

#[test]
fn what_is_not_ours_is_left_alone_and_a_damaged_mark_sends_again() {
    let (folder, mut spool) = filled(0..3, 1 << 20);
    fs::write(folder.path().join("other"), "x").unwrap();
    assert!(spool.done(0));
    drop(spool);
    let file = OpenOptions::new().write(true).open(folder.path().join(SENT)).unwrap();
    file.write_all_at(&[0xff], 0).unwrap();
    let mut spool = Spool::open(folder.path(), 1 << 20).unwrap();
    assert_eq!(drain(&mut spool), [0, 1, 2]);
    assert!(folder.path().join("other").exists());
}
