use super::*;
use crate::delivery::chunk::RecordMark;
use crate::delivery::forward::tests::{CHUNK, Chunks, MEMORY, RECORD};

/// Otherwise a few of them fill the output's share, and nothing comes any more by which a receiver that refuses them
/// could be told from one that is away.
#[test]
fn a_chunk_of_which_one_record_is_left_takes_the_memory_of_its_marks() {
    let chunks = Chunks::new();
    let (mut parcels, mut left) = (Parcels::new(1), vec![Parcel::whole(chunks.of(64))]);
    assert_eq!(chunks.share.used(), 64 * RECORD);
    while left[0].records() > 1 {
        let again = parcels.cut(left.pop().unwrap());
        left = again;
        parcels.acknowledged(left.pop().unwrap());
    }
    assert_eq!(chunks.share.used(), 64 * size_of::<RecordMark>());
    parcels.acknowledged(left.pop().unwrap());
    assert_eq!(chunks.share.used(), 0);
}

/// Otherwise an output whose every chunk has such a record would stand still for ever.
#[test]
fn a_refused_chunk_can_be_halved_when_the_memory_is_full() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let chunks = Chunks::new();
        let suspect = Parcel::whole(chunks.full(compression));
        let (mut others, taken) = (Vec::new(), chunks.share.used());
        while let Some(credit) = chunks.share.try_take() {
            others.push(credit);
        }
        // As full as it can be: all but the reserve.
        let rest = (others.len() - 1) * CHUNK;
        others[0].set_bytes(MEMORY - CHUNK - taken - rest);
        assert_eq!(chunks.share.used(), MEMORY - CHUNK);
        assert_eq!(Parcels::new(1).cut(suspect).len(), 2, "{compression}");
    }
}

/// Scenario: records that compress to next to nothing, so that their marks are more than they are; each chunk is refused.
#[test]
fn each_of_the_chunks_that_fill_the_memory_can_be_halved() {
    for compression in [Compression::Gzip, Compression::Zstd] {
        let chunks = Chunks::new();
        let suspects: Vec<_> = std::iter::from_fn(|| chunks.of_same_records(compression)).collect();
        assert!(suspects.len() > 1_000);
        let mut parcels = Parcels::new(1);
        let halved = suspects.into_iter().map(|suspect| parcels.cut(Parcel::whole(suspect)));
        let halved: Vec<_> = halved.collect();
        assert!(halved.iter().all(|halves| halves.len() == 2), "{compression}");
        halved.into_iter().flatten().for_each(|half| parcels.acknowledged(half));
        assert_eq!(chunks.share.used(), 0);
    }
}

#[test]
fn a_refused_piece_stays_whole_until_there_is_memory_to_unpack_it() {
    let chunks = Chunks::new();
    let (mut parcels, suspect) = (Parcels::new(1), Parcel::whole(chunks.of(4)));
    let free = MEMORY - chunks.share.used();
    let mut others = chunks.share.try_take().unwrap();
    others.set_bytes(free - RECORD);
    let mut left = parcels.cut(suspect);
    assert_eq!((left.len(), left[0].records()), (1, 4));
    drop(others);
    assert_eq!(parcels.cut(left.remove(0)).len(), 2);
}

#[test]
fn every_record_of_a_chunk_is_in_one_piece_and_whole() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let chunks = Chunks::new();
        let (mut parcels, mut left) = (Parcels::new(1), vec![Parcel::whole(chunks.full(compression))]);
        let mut found = Vec::new();
        while let Some(parcel) = left.pop() {
            if parcel.records() > 1 {
                left.extend(parcels.cut(parcel));
                continue;
            }
            let mut entries = parcel.entries().to_vec();
            parcel.compression().unpack(&mut entries, RECORD).unwrap();
            found.push(entries[0]);
            assert!(entries.len() == RECORD && entries.iter().all(|byte| *byte == entries[0]));
        }
        found.sort_unstable();
        assert_eq!(found, (0..(CHUNK / RECORD) as u8).collect::<Vec<_>>(), "{compression}");
    }
}

/// A receiver that is overloaded refuses at random.
#[tokio::test(start_paused = true)]
async fn a_record_that_is_taken_in_one_of_twenty_tries_is_not_dropped() {
    let chunks = Chunks::new();
    let mut parcels = Parcels::new(1);
    let mut suspect = Parcel::whole(chunks.of(1));
    for _ in 1..20 {
        suspect = parcels.after_failure(suspect).pop().expect("it is sent again");
        parcels.acknowledged(Parcel::whole(chunks.of(1)));
        tokio::time::advance(LAST_DOUBT).await;
    }
    assert!(parcels.after_failure(suspect).is_empty());
}

#[test]
fn each_receiver_has_six_refusals_before_all_that_is_refused_is_cut() {
    let chunks = Chunks::new();
    for receivers in [1, 3] {
        let mut parcels = Parcels::new(receivers);
        let refuse = |parcels: &mut Parcels| parcels.after_failure(Parcel::whole(chunks.of(2))).len();
        for _ in 1..6 * receivers {
            assert_eq!(refuse(&mut parcels), 1);
        }
        assert_eq!(refuse(&mut parcels), 2, "with {receivers} receivers");
        parcels.acknowledged(Parcel::whole(chunks.of(1)));
        assert_eq!(refuse(&mut parcels), 1, "one takes something");
    }
}
