//! Which ports of which containers: those that are named, else the one that can only be meant.
//!
//! Prometheus's convention scrapes every declared port when none is named; users have suffered from that for years
//! (prometheus/prometheus#3756). Here a pod that does not say which of several ports it means is told so.

use std::fmt;

use super::Port;
use crate::cluster::{Container, ContainerPort};

/// A port to scrape, and the container that declares it, if one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chosen<'a> {
    pub(super) port: u16,
    pub(super) container: Option<&'a str>,
}

/// Why there is no port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoPort {
    /// No container has a port of this name; those that there are.
    Unknown(String, Vec<String>),
    /// In the node's network anybody may listen on a number: only what is declared is the pod's.
    Undeclared(u16),
    /// None is declared.
    None,
    /// Several are declared, and none is called `metrics`.
    Several(Vec<String>),
}

/// The ports `named` by an annotation, else those called `metrics` or `*-metrics`, else the only one.
pub(super) fn choose<'a>(
    named: &[Port],
    containers: &[&'a Container],
    host_network: bool,
) -> Vec<Result<Chosen<'a>, NoPort>> {
    let ports = |container: &&'a Container| {
        let name = container.name.as_str();
        container.ports.iter().map(move |port| (name, port))
    };
    let mut declared: Vec<(&str, &ContainerPort)> = containers.iter().flat_map(ports).collect();
    if !named.is_empty() {
        return named.iter().map(|port| find(port, &declared, containers, host_network)).collect();
    }
    declared.sort_by_key(|(_, port)| port.number);
    declared.dedup_by_key(|(_, port)| port.number);
    let is_for_metrics = |port: &ContainerPort| {
        port.name.as_ref().is_some_and(|name| name == "metrics" || name.ends_with("-metrics"))
    };
    let for_metrics: Vec<_> = declared.iter().filter(|(_, port)| is_for_metrics(port)).collect();
    let chosen = |(container, port): &(&'a str, &ContainerPort)| {
        Ok(Chosen { port: port.number, container: Some(container) })
    };
    match (for_metrics.len(), declared.as_slice()) {
        (0, []) => vec![Err(NoPort::None)],
        (0, [only]) => vec![chosen(only)],
        (0, several) => vec![Err(NoPort::Several(several.iter().map(|(_, port)| label(port)).collect()))],
        _ => for_metrics.into_iter().map(chosen).collect(),
    }
}

fn find<'a>(
    wanted: &Port,
    declared: &[(&'a str, &ContainerPort)],
    containers: &[&'a Container],
    host_network: bool,
) -> Result<Chosen<'a>, NoPort> {
    let is_meant = |port: &ContainerPort| match wanted {
        Port::Number(number) => port.number == *number,
        Port::Name(name) => port.name.as_ref() == Some(name),
    };
    if let Some((container, port)) = declared.iter().find(|(_, port)| is_meant(port)) {
        return Ok(Chosen { port: port.number, container: Some(container) });
    }
    match wanted {
        Port::Number(number) if host_network => Err(NoPort::Undeclared(*number)),
        // A container need not declare what it listens on; where there is only one, it is that one's.
        Port::Number(number) => {
            let container = if let [only] = containers { Some(only.name.as_str()) } else { None };
            Ok(Chosen { port: *number, container })
        }
        Port::Name(name) => {
            Err(NoPort::Unknown(name.clone(), declared.iter().map(|(_, port)| label(port)).collect()))
        }
    }
}

fn label(port: &ContainerPort) -> String {
    port.name.as_ref().map_or_else(|| port.number.to_string(), |name| format!("{name} ({})", port.number))
}

// === impl NoPort ===

impl fmt::Display for NoPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoPort::Unknown(name, declared) if declared.is_empty() => {
                write!(
                    f,
                    "no container declares a port {name:?}, nor any other: declare it, or give its number"
                )
            }
            NoPort::Unknown(name, declared) => {
                write!(f, "no container declares a port {name:?}; there are {}", declared.join(", "))
            }
            NoPort::Undeclared(number) => write!(
                f,
                "port {number} is not declared by a container: in the node's network only declared ports are scraped"
            ),
            NoPort::None => f.write_str("no container declares a port: set sidelight.dev/metrics.port"),
            NoPort::Several(declared) => write!(
                f,
                "several ports and none is called metrics: {}; set sidelight.dev/metrics.port",
                declared.join(", ")
            ),
        }
    }
}
