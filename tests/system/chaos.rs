//! Faults in random order and combination, from a printed seed; at the end everything heals, and is counted.
//!
//! Pods write bursts, long and partial lines and panics; they are rotated, compressed, truncated, deleted under backlog.
//! The agent is killed, stopped, frozen, reloaded, its checkpoints are damaged; each of two receivers has faults of its
//! own; metadata changes. Nothing may be missing but what was deleted and unread when an agent ended, and that must be
//! counted, by the namespace that each pod has for itself.

mod node;
mod receiver;
mod world;

use std::time::{Duration, Instant};

use sidelight_tests::dice::Dice;

use world::World;

/// A run of its own kind: `SEED` repeats it, `CHAOS_SECONDS` says how long it is.
#[test]
#[ignore = "takes as long as it is told to: see `just chaos`"]
fn faults_in_random_order_lose_nothing() {
    let seconds = std::env::var("CHAOS_SECONDS").map_or(20, |seconds| seconds.parse().unwrap());
    let mut world = World::new("chaos", Dice::from_environment());
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        world.step();
    }
    world.heal();
    world.assert_nothing_is_lost();
}

/// Scenario: a short run, and one line that the kubelet says it has written and has not.
/// Guarantee: it is seen. Otherwise the test above would prove nothing.
#[test]
#[should_panic(expected = "1 lines of pod-0 are lost")]
fn one_lost_line_is_seen() {
    let mut world = World::new("chaos, with a line that is lost", Dice::new(1));
    for _ in 0..50 {
        world.step();
    }
    world.forget_to_write_a_line();
    world.heal();
    world.assert_nothing_is_lost();
}
