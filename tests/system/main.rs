//! The real binary against a node and a receiver that count: one module for each surface.

#![allow(clippy::unwrap_used, reason = "in a test a failure is a failed test")]

mod cluster;
mod commands;
mod faults;
mod real_kubernetes;
mod real_receivers;
mod records;
mod rotation;

use sidelight_tests::agent::Agent;
use sidelight_tests::forward_server::ForwardServer;
use sidelight_tests::kubelet::Node;

const BINARY: &str = env!("CARGO_BIN_EXE_sidelight");

/// A configuration for the node, one Forward output to the server; `logs` and `forward` are further keys.
fn config(node: &Node, server: &ForwardServer, logs: &str, forward: &str) -> String {
    let (directory, address) = (node.path().display(), server.address());
    format!(
        "node: node-1\ndata_dir: {directory}/data\nadmin: {{ listen: '127.0.0.1:0', api: '127.0.0.1:0' }}\nworkers: 2\n\
         kubernetes: {{ source: none }}\nlogs:\n  root: {directory}/pods\n{logs}  outputs:\n  - forward:\n      upstreams: ['{address}']\n      flush_interval: 50ms\n{forward}"
    )
}

fn start(node: &Node, server: &ForwardServer) -> Agent {
    Agent::start(BINARY, node.path(), &config(node, server, "", "      ack_timeout: 20s\n"))
}
