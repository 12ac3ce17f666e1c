//! Puts Sidelight's sidecar into pods that ask for it.
//!
//! ```text
//! API server --review--> server (TLS, limits) -> webhook (review) -> decide -> sidecar, log_volumes -> patch --> API server
//!                                                                     ^ template (config, profile)
//! kubectl, GitOps --YAML--> cli/inject -> offline (manifest, yaml) ----+
//! cluster --what is there--> cli/check -> check
//! ```

pub mod certificate;
pub mod check;
pub mod cli;
pub mod config;
pub mod decide;
pub mod events;
pub mod log_volumes;
pub mod manifest;
pub mod metrics;
pub mod offline;
pub mod patch;
pub mod pod;
#[allow(unreachable_pub, reason = "the derives of kube repeat the types inside functions")]
pub mod profile;
pub mod profiles;
pub mod references;
pub mod review;
pub mod serve;
pub mod server;
pub mod sidecar;
pub mod template;
pub mod uninject;
pub mod webhook;
pub mod yaml;
