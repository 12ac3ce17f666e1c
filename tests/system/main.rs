//! The real binary against a node and a receiver that count: one module for each surface.

#![allow(clippy::unwrap_used, reason = "in a test a failure is a failed test")]

mod annotations;
mod authorization;
mod chaos;
mod cluster;
mod commands;
mod compliance;
mod events;
mod faults;
mod forward;
mod kubelet;
mod lifecycle;
mod metrics;
mod outages;
mod outputs;
mod pull;
mod real_delivery;
mod real_exporters;
mod real_kubernetes;
mod real_limits;
mod real_node;
mod real_prometheus;
mod real_receivers;
mod real_sidecar;
mod records;
mod remote_write;
mod rotation;
mod sidecar;

use sidelight_tests::agent::Agent;
use sidelight_tests::forward_server::ForwardServer;
use sidelight_tests::kubelet::Node;

const BINARY: &str = env!("CARGO_BIN_EXE_sidelight");

/// A configuration for the node; `logs` are further keys, `outputs` the items of the list.
fn config_of(node: &Node, logs: &str, outputs: &str) -> String {
    let directory = node.path().display();
    format!(
        "node: node-1\ndata_dir: {directory}/data\nadmin: {{ listen: '127.0.0.1:0', api: '127.0.0.1:0' }}\nworkers: 2\n\
         kubernetes: {{ source: none }}\nlogs:\n  root: {directory}/pods\n{logs}  outputs:\n{outputs}"
    )
}

/// A Forward output to the server; `output` are further keys of the output, `forward` of the section.
fn forward_to(server: &ForwardServer, output: &str, forward: &str) -> String {
    let address = server.address();
    format!("  - forward:\n      upstreams: ['{address}']\n      flush_interval: 50ms\n{forward}{output}")
}

/// A configuration for the node, one Forward output to the server; `logs` and `forward` are further keys.
fn config(node: &Node, server: &ForwardServer, logs: &str, forward: &str) -> String {
    config_of(node, logs, &forward_to(server, "", forward))
}

/// The same configuration with the node's `pods.json` to ask for metadata.
fn with_pods(node: &Node, config: &str) -> String {
    let file = format!("source: file, file: {}/pods.json, metadata_wait: 500ms", node.path().display());
    config.replace("source: none", &file)
}

/// An agent with that and nothing more. On a busy machine the receiver needs seconds for a full chunk.
fn start(node: &Node, server: &ForwardServer) -> Agent {
    Agent::start(BINARY, node.path(), &config(node, server, "", "      ack_timeout: 10s\n"))
}
