//! What pods, the agent and the injector agree on: names, allowed values and limits. Pure: no I/O, no async, no Kubernetes client.

pub mod annotations;
pub mod duration;
pub mod glob;
pub mod nearest;
pub mod quantity;
pub mod sidecar;
