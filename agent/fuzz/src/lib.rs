//! What agent and injector read from others, one function for each: it is given any bytes and panics where a promise is broken.

mod checkpoints;
mod contract;
mod exposition;
mod heads;
mod json;
mod parsers;
mod protobuf;
mod records;
mod replies;
mod reviews;

pub use checkpoints::checkpoints;
pub use contract::contract;
pub use exposition::exposition;
pub use heads::heads;
pub use parsers::parsers;
pub use protobuf::protobuf;
pub use records::records;
pub use replies::replies;
pub use reviews::reviews;

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    /// Runs a function over each of its seeds, and names those that make it panic.
    fn replay(target: &str, run: fn(&[u8])) {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
        let mut seeds: Vec<_> = directory.read_dir().unwrap().map(|seed| seed.unwrap().path()).collect();
        seeds.sort();
        assert!(!seeds.is_empty(), "{} is empty", directory.display());
        let keeps = |seed: &PathBuf| {
            let bytes = std::fs::read(seed).unwrap();
            std::panic::catch_unwind(|| run(&bytes)).is_ok()
        };
        seeds.retain(|seed| !keeps(seed));
        assert!(seeds.is_empty(), "promises are broken, see above, with {seeds:#?}");
    }

    #[test]
    fn seeds_of_exposition_keep_their_promises() {
        replay("exposition", super::exposition);
    }

    #[test]
    fn seeds_of_protobuf_keep_their_promises() {
        replay("protobuf", super::protobuf);
    }

    #[test]
    fn seeds_of_heads_keep_their_promises() {
        replay("heads", super::heads);
    }

    #[test]
    fn seeds_of_records_keep_their_promises() {
        replay("records", super::records);
    }

    #[test]
    fn seeds_of_parsers_keep_their_promises() {
        replay("parsers", super::parsers);
    }

    #[test]
    fn seeds_of_replies_keep_their_promises() {
        replay("replies", super::replies);
    }

    #[test]
    fn seeds_of_checkpoints_keep_their_promises() {
        replay("checkpoints", super::checkpoints);
    }

    #[test]
    fn seeds_of_contract_keep_their_promises() {
        replay("contract", super::contract);
    }

    #[test]
    fn seeds_of_reviews_keep_their_promises() {
        replay("reviews", super::reviews);
    }
}
