//! The agent: container logs on their way to their receivers.
//!
//! ```text
//! log files -> logs (discover, read, split, join, parse, encode) ==chunks==> delivery -> receiver
//!                ^ settings, metadata                                            |
//! cluster -------+                                  checkpoint (ledger, store) <-+ acknowledged positions
//! ```

pub mod admin;
pub mod app;
pub mod checkpoint;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod delivery;
pub mod demo;
pub mod logs;
pub mod metrics;
pub mod wake;
