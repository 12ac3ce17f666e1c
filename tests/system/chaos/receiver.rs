//! A receiver of the chaos: it falls ill, and is cured.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sidelight_tests::dice::Dice;
use sidelight_tests::forward_server::ForwardServer;

pub(super) struct Receiver {
    pub(super) server: ForwardServer,
    /// When its fault ends.
    sick_until: Option<Instant>,
}

// === impl Receiver ===

impl Receiver {
    pub(super) fn new() -> Self {
        Receiver { server: ForwardServer::counting(), sick_until: None }
    }

    /// Gives it a fault for a few seconds, if it has none: less than makes the agent give up a record that is refused.
    pub(super) fn make_sick(&mut self, dice: &mut Dice) -> Option<&'static str> {
        if self.sick_until.is_some() {
            return None;
        }
        self.sick_until = Some(Instant::now() + Duration::from_millis(dice.below(5_000)));
        let faults = self.server.faults();
        Some(match dice.below(7) {
            0 | 1 => {
                self.server.stop();
                "receiver away"
            }
            2 => {
                faults.stall.store(true, Ordering::SeqCst);
                "receiver stalls"
            }
            3 => {
                faults.cut_after.store(1 + dice.below(200_000), Ordering::SeqCst);
                "receiver cuts"
            }
            4 => {
                faults.lose_acks.store(1 + dice.below(4), Ordering::SeqCst);
                "receiver loses acknowledgements"
            }
            5 => {
                faults.ack_delay.store(dice.below(4_000), Ordering::SeqCst);
                "receiver acknowledges late"
            }
            _ => {
                *faults.refuse.lock().unwrap() = Some("seq=".to_owned());
                "receiver refuses"
            }
        })
    }

    /// Ends its fault when that is due.
    pub(super) fn cure_in_time(&mut self) {
        if self.sick_until.is_some_and(|until| until <= Instant::now()) {
            self.cure();
        }
    }

    pub(super) fn cure(&mut self) {
        self.sick_until = None;
        let faults = self.server.faults();
        faults.stall.store(false, Ordering::SeqCst);
        faults.cut_after.store(0, Ordering::SeqCst);
        faults.lose_acks.store(0, Ordering::SeqCst);
        faults.ack_delay.store(0, Ordering::SeqCst);
        *faults.refuse.lock().unwrap() = None;
        if !self.server.is_listening() {
            self.server.listen();
        }
    }
}
