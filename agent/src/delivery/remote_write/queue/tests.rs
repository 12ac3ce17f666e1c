//! Room, order, and pipelines that follow each other.

use super::*;

/// Counters that nobody reads but the test.
pub(in crate::delivery::remote_write) fn lost() -> Lost {
    let counter = || IntCounter::new("a", "b").unwrap();
    Lost { queue_full: counter(), spool_full: counter(), damaged: counter(), unsupported: counter() }
}

fn push(queue: &Queue, samples: std::ops::RangeInclusive<u64>) {
    for samples in samples {
        queue.push(vec![0; 40].into(), Version::V2, samples);
    }
}

/// Takes all there is, as an output does: the samples of each request.
fn drain(queue: &Queue, pipeline: Pipeline, spool: &mut Option<Spool>) -> Vec<u64> {
    let mut samples = Vec::new();
    loop {
        let oldest = match queue.first_on_disk(spool) {
            Some(oldest) => oldest,
            None => match queue.first(pipeline) {
                Next::Request(oldest) => oldest,
                Next::Nothing | Next::Closed => return samples,
            },
        };
        assert!(queue.holds(&oldest) && queue.done(&oldest, spool));
        samples.push(oldest.samples);
    }
}

#[test]
fn the_oldest_goes_when_there_is_no_room_and_is_counted_once() {
    let queue = Queue::new(100, PathBuf::new(), lost());
    let pipeline = queue.open(0);
    push(&queue, 1..=1);
    let Next::Request(sent) = queue.first(pipeline) else { panic!("there is one") };
    push(&queue, 2..=4);
    assert_eq!(queue.lost.queue_full.get(), 1 + 2);
    assert!(!queue.holds(&sent) && !queue.done(&sent, &mut None), "it has made room");
    assert_eq!(drain(&queue, pipeline, &mut None), [3, 4]);
}

#[test]
fn what_is_on_disk_comes_before_what_is_in_memory_and_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let queue = || Queue::new(1000, folder.path().join("a"), lost());
    let first = queue();
    let pipeline = first.open(1 << 20);
    let mut spool = None;
    // It comes before the spool can be opened, and behind what an earlier process has left there.
    push(&first, 1..=3);
    first.open_spool("a", &mut spool);
    let Next::Request(sent) = first.first(pipeline) else { panic!("there is one") };
    first.spill(&mut spool).unwrap();
    push(&first, 4..=5);
    assert_eq!((first.samples_in_memory(), first.samples()), (4 + 5, 15));
    assert!(first.holds(&sent) && first.done(&sent, &mut spool), "it was moved meanwhile");
    first.spill(&mut spool).unwrap();
    drop(spool);
    push(&first, 6..=6);
    let second = queue();
    push(&second, 7..=7);
    let pipeline = second.open(1 << 20);
    let mut spool = None;
    second.open_spool("a", &mut spool);
    assert_eq!(drain(&second, pipeline, &mut spool), [2, 3, 4, 5, 7], "the sixth was in memory only");
    assert_eq!((second.samples(), second.spooled()), (0, Spooled::default()));
    push(&second, 8..=8);
    let limited = second.open(0);
    second.spill(&mut spool).unwrap();
    assert_eq!((second.samples_in_memory(), second.spooled().bytes), (8, 0), "nothing more goes there");
    assert_eq!(drain(&second, limited, &mut spool), [8]);
}

#[test]
fn a_pipeline_that_ends_late_does_not_close_the_queue_of_the_next() {
    let queue = Queue::new(100, PathBuf::new(), lost());
    let (old, new) = (queue.open(0), queue.open(0));
    queue.close(old);
    assert!(matches!(queue.first(old), Next::Closed) && matches!(queue.first(new), Next::Nothing));
    queue.close(new);
    assert!(matches!(queue.first(new), Next::Closed));
}
