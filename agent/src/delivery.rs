//! Closed chunks on their way to receivers.

pub mod chunk;
pub mod compression;
pub mod forward;
pub mod memory;
pub mod secret;
pub mod status;
pub mod stdout;
pub mod tls;
