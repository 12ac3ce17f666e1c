//! Closed chunks on their way to receivers.

pub mod chunk;
pub mod compression;
pub mod forward;
pub mod memory;
pub mod remote_write;
pub mod secret;
pub mod status;
pub mod stdout;
pub mod tls;

use tokio::time::Instant;

/// Waits until `time`; without one, for ever.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
