//! `logs.outputs`: where records go.

use std::path::PathBuf;
use std::time::Duration;

use super::{MINUTES, globs, selector};
use crate::config::mistakes::Mistakes;
use crate::config::section::{Section, scalar};
use crate::config::{Forward, Match, Output, OutputKind, Stdout, Tls, Upstream};
use crate::delivery::chunk::Compression;
use crate::delivery::secret::Secret;
use crate::delivery::tls::connector;
use crate::logs::tag::TagTemplate;

pub(super) fn outputs(
    section: &mut Section,
    files: &mut Vec<PathBuf>,
    mistakes: &mut Mistakes,
) -> Vec<Output> {
    let path = section.path("outputs");
    let items = section.items("outputs", mistakes).unwrap_or_default();
    // A sidecar may be there for metrics alone.
    if items.is_empty() && !mistakes.in_sidecar() {
        mistakes.add(&path, "at least one output is needed: forward or stdout");
    }
    let outputs: Vec<Output> = items
        .into_iter()
        .filter_map(|(path, item)| output(Section::new(&path, item, mistakes), &path, files, mistakes))
        .collect();
    unique_names(&path, outputs.iter().map(|output| output.name.as_str()), mistakes);
    outputs
}

/// Checks the names of the outputs in the list at `path`.
pub(super) fn unique_names<'a>(path: &str, names: impl Iterator<Item = &'a str>, mistakes: &mut Mistakes) {
    let names: Vec<&str> = names.collect();
    for (n, name) in names.iter().enumerate() {
        if names[..n].contains(name) {
            mistakes.add(
                &format!("{path}[{n}].name"),
                format!("{name:?} is taken by another output; names are unique"),
            );
        }
    }
}

fn output(
    mut section: Section,
    path: &str,
    files: &mut Vec<PathBuf>,
    mistakes: &mut Mistakes,
) -> Option<Output> {
    let forward_section = section.optional_section("forward", mistakes);
    let stdout_section = section.optional_section("stdout", mistakes);
    let kind = match (forward_section, stdout_section) {
        (Some(inner), None) => Some(OutputKind::Forward(Box::new(forward(inner, files, mistakes)))),
        (None, Some(inner)) => {
            inner.finish(mistakes);
            Some(OutputKind::Stdout(Stdout {}))
        }
        _ => {
            mistakes.add(path, "expected exactly one of forward, stdout");
            None
        }
    };
    let default_name = match kind {
        Some(OutputKind::Stdout(_)) => "stdout",
        _ => "forward",
    };
    let name = section.text("name", default_name, mistakes);
    let matching = matching(&mut section, mistakes);
    section.finish(mistakes);
    Some(Output { name, matching, kind: kind? })
}

/// Takes the section `match`.
pub(super) fn matching(section: &mut Section, mistakes: &mut Mistakes) -> Match {
    let mut inner = section.section("match", mistakes);
    let matching = Match {
        namespaces: globs(&mut inner, "namespaces", &["*"], mistakes),
        labels: selector(&mut inner, mistakes),
    };
    inner.finish(mistakes);
    matching
}

fn forward(mut section: Section, files: &mut Vec<PathBuf>, mistakes: &mut Mistakes) -> Forward {
    let forward = Forward {
        upstreams: upstreams(&mut section, mistakes),
        tag: section.read("tag", "kube.{namespace}".to_owned(), mistakes, |text| {
            text.parse::<TagTemplate>().map(|_| text.to_owned())
        }),
        ack: section.flag("ack", true, mistakes),
        ack_timeout: section.duration("ack_timeout", Duration::from_secs(60), 100..=60 * MINUTES, mistakes),
        compress: section.read("compress", Compression::Gzip, mistakes, |text| text.parse()),
        shared_key: secret(&mut section, "shared_key", "shared_key_file", files, mistakes),
        username: section.text("username", "", mistakes),
        password: secret(&mut section, "password", "password_file", files, mistakes),
        tls: tls(section.section("tls", mistakes), files, mistakes),
        flush_interval: section.duration(
            "flush_interval",
            Duration::from_secs(1),
            10..=10 * MINUTES,
            mistakes,
        ),
        // Fluent Bit's receiver takes 6,144,000 bytes, compressed or not.
        chunk_bytes: section.size("chunk_bytes", 1 << 20, 16 << 10..=5_000_000, mistakes),
    };
    if forward.shared_key.is_none() && (!forward.username.is_empty() || forward.password.is_some()) {
        mistakes.add(
            &section.path("username"),
            "user and password are part of the handshake: set shared_key as well",
        );
    }
    section.finish(mistakes);
    forward
}

fn upstreams(section: &mut Section, mistakes: &mut Mistakes) -> Vec<Upstream> {
    let path = section.path("upstreams");
    let items = section.items("upstreams", mistakes).unwrap_or_default();
    let upstreams: Vec<Upstream> = items
        .into_iter()
        .map(|(path, item)| {
            let mut upstream = match scalar(&item) {
                Some(address) => Upstream { address, weight: 1, standby: false },
                None => {
                    let mut section = Section::new(&path, item, mistakes);
                    let address = section.text("address", "", mistakes);
                    let weight = section.number("weight", 1, 1..=1_000, mistakes);
                    let standby = section.flag("standby", false, mistakes);
                    section.finish(mistakes);
                    Upstream { address, weight: u32::try_from(weight).unwrap_or(1), standby }
                }
            };
            upstream.address = upstream.address.trim().to_owned();
            if !is_host_and_port(&upstream.address) {
                mistakes.add(
                    &path,
                    format!("{:?} is no address; write host:port, IPv6 in brackets", upstream.address),
                );
            }
            upstream
        })
        .collect();
    if upstreams.is_empty() {
        mistakes.add(&path, "at least one is needed, for example [\"fluentd.logging.svc:24224\"]");
    } else if upstreams.iter().all(|upstream| upstream.standby) {
        mistakes.add(&path, "at least one must not be a standby");
    }
    upstreams
}

fn is_host_and_port(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_is_right = match bracketed {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains([':', '/', ' ']),
    };
    host_is_right && port.parse::<u16>().is_ok_and(|port| port != 0)
}

pub(super) fn secret(
    section: &mut Section,
    key: &'static str,
    file_key: &'static str,
    files: &mut Vec<PathBuf>,
    mistakes: &mut Mistakes,
) -> Option<Secret> {
    let value = section.text(key, "", mistakes);
    let file = section.text(file_key, "", mistakes);
    if file.is_empty() {
        return (!value.is_empty()).then(|| Secret::new(value));
    }
    if !value.is_empty() {
        mistakes.add(&section.path(key), format!("set either this or {file_key}, not both"));
    }
    let file = PathBuf::from(file);
    if !mistakes.reads_files() {
        return Some(Secret::default());
    }
    let content = std::fs::read_to_string(&file);
    files.push(file.clone());
    match content {
        Ok(content) if content.trim().is_empty() => {
            mistakes.add(&section.path(file_key), format!("{} is empty", file.display()));
            None
        }
        Ok(content) => Some(Secret::new(content.trim_end_matches(['\r', '\n']).to_owned())),
        Err(error) => {
            mistakes.add(&section.path(file_key), format!("cannot read {}: {error}", file.display()));
            None
        }
    }
}

pub(super) fn tls(mut section: Section, files: &mut Vec<PathBuf>, mistakes: &mut Mistakes) -> Tls {
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let tls = Tls {
        enabled: section.flag("enabled", false, mistakes),
        ca_file: given(section.text("ca_file", "", mistakes)).map(PathBuf::from),
        cert_file: given(section.text("cert_file", "", mistakes)).map(PathBuf::from),
        key_file: given(section.text("key_file", "", mistakes)).map(PathBuf::from),
        server_name: given(section.text("server_name", "", mistakes)),
    };
    if tls.cert_file.is_some() != tls.key_file.is_some() {
        mistakes.add(&section.path("cert_file"), "cert_file and key_file belong together: set both or none");
    }
    let given = [&tls.ca_file, &tls.cert_file, &tls.key_file];
    if tls.enabled {
        files.extend(given.into_iter().flatten().cloned());
        if mistakes.reads_files()
            && let Err(error) = connector(&tls)
        {
            mistakes.add(&section.path("enabled"), error);
        }
    } else if given.iter().any(|file| file.is_some()) || tls.server_name.is_some() {
        mistakes.add(
            &section.path("enabled"),
            "files or a name are given, and lines would go out in clear: set it to true",
        );
    }
    section.finish(mistakes);
    tls
}
