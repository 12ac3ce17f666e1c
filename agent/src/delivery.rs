//! Closed chunks on their way to receivers.

pub mod chunk;
pub mod compression;
pub mod forward;
pub mod http;
pub mod memory;
pub(crate) mod protobuf;
pub mod remote_write;
pub mod secret;
pub mod status;
pub mod stdout;
pub mod tls;

use tokio::sync::watch;
use tokio::time::Instant;

/// What we call ourselves in HTTP requests.
pub(crate) const USER_AGENT: &str = concat!("sidelight/", env!("CARGO_PKG_VERSION"));

/// Waits until `time`; without one, for ever.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Waits until the deadline that `stop` gives has passed, or nobody is there any more who could give one.
async fn deadline_passed(stop: &mut watch::Receiver<Option<Instant>>) {
    loop {
        let deadline = *stop.borrow_and_update();
        tokio::select! {
            () = until(deadline) => return,
            changed = stop.changed() => if changed.is_err() {
                return;
            }
        }
    }
}
