//! API servers that ask without pause, and what becomes of their requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use sidelight_tests::caller::{Caller, Line, review};
use sidelight_tests::control_plane::{ControlPlane, SERVER_NAME};

use crate::pod;

/// Between two requests of one API server: the machine is not to be the limit.
const PAUSE: Duration = Duration::from_millis(10);

/// Two API servers for each replica: one keeps its connections, the other makes a new one for each request.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Result<(), String>>>,
}

// === impl Load ===

impl Load {
    /// Begins. The API servers are so far behind in what they know of the webhook's configuration.
    pub(crate) fn start(plane: &Arc<ControlPlane>, replicas: &[SocketAddr], behind: Duration) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut threads = Vec::new();
        for (address, keeps) in replicas.iter().flat_map(|address| [(*address, true), (*address, false)]) {
            let (plane, stop, answered) = (plane.clone(), stop.clone(), answered.clone());
            threads.push(std::thread::spawn(move || {
                let body = review("u-1", "shop", &pod(), true);
                let mut kept = None;
                while !stop.load(Ordering::Relaxed) {
                    let bundle = plane.ca_bundle(behind).unwrap();
                    let caller = Caller::new(address, SERVER_NAME, &bundle);
                    kept = ask(&caller, kept, &body).map_err(|error| format!("{address}: {error}"))?;
                    kept = kept.filter(|_| keeps);
                    answered.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(PAUSE);
                }
                Ok(())
            }));
        }
        Load { stop, answered, threads }
    }

    /// How many requests were answered.
    pub(crate) fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Whether one has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Ends; no request may have failed.
    pub(crate) fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            assert_eq!(thread.join().unwrap(), Ok(()));
        }
    }
}

/// One review; gives the connection back if it may be used again.
fn ask(caller: &Caller, kept: Option<Line>, body: &[u8]) -> Result<Option<Line>, String> {
    let line = kept.map_or_else(|| caller.connect(), Ok);
    let mut line = line.map_err(|error| format!("no connection: {error}"))?;
    let reply = line.review(body).map_err(|error| format!("no answer: {error}"))?;
    match reply.json()["response"]["patch"].is_string() {
        true => Ok((!reply.is_last()).then_some(line)),
        false => Err(format!("{}: {}", reply.status, String::from_utf8_lossy(&reply.body))),
    }
}
