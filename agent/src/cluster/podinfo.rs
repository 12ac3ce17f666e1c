//! The one pod of a sidecar: what the injector knew of it, and what the Downward API writes of it into files.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use sidelight_contract::sidecar::{self, Environment};

use super::{Container, ContainerPort, Metrics, Phase, Pod, Store};
use crate::config::{KnownContainer, KnownPod};

/// The kubelet writes the files again about once a minute.
const INTERVAL: Duration = Duration::from_secs(1);

/// Where a sidecar learns of its pod.
#[derive(Clone, Debug)]
pub struct PodInfo {
    pod: Pod,
    directory: PathBuf,
}

/// The texts of the two files; none of one that cannot be read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Texts {
    labels: Option<String>,
    annotations: Option<String>,
}

// === impl PodInfo ===

impl PodInfo {
    /// Of the pod that the environment names; the files lie in `directory`.
    pub fn new(environment: &Environment, known: Option<&KnownPod>, directory: &Path) -> Self {
        let known = known.cloned().unwrap_or_default();
        let address: Option<IpAddr> = environment.pod_ip.as_ref().and_then(|address| address.parse().ok());
        let others = known.containers.into_iter().filter(|container| container.name != sidecar::CONTAINER);
        let pod = Pod {
            uid: environment.pod_uid.clone(),
            namespace: environment.namespace.clone(),
            name: environment.pod.clone(),
            ip: environment.pod_ip.clone(),
            ips: address.into_iter().collect(),
            node: environment.node.clone(),
            phase: Phase::Running,
            is_own: true,
            owner: known.owner,
            containers: others.map(container).collect(),
            ..Pod::default()
        };
        PodInfo { pod, directory: directory.to_owned() }
    }

    /// Tells the store of the pod as it is now.
    pub fn tell(&self, store: &Store) {
        self.tell_of(&self.read(None), store);
    }

    fn tell_of(&self, texts: &Texts, store: &Store) {
        let read = |text: &Option<String>| entries(text.as_deref().unwrap_or_default());
        let pod =
            Pod { labels: read(&texts.labels), annotations: read(&texts.annotations), ..self.pod.clone() };
        store.replace(vec![pod]);
    }

    /// A file that cannot be read just now is as it was.
    fn read(&self, before: Option<&Texts>) -> Texts {
        let read = |name: &str, before: Option<&String>| {
            let path = self.directory.join(name);
            match fs::read_to_string(&path) {
                Ok(text) => Some(text),
                Err(error) => {
                    if before.is_none() {
                        complain(&path, &error);
                    }
                    before.cloned()
                }
            }
        };
        Texts {
            labels: read(sidecar::LABELS_FILE, before.and_then(|texts| texts.labels.as_ref())),
            annotations: read(sidecar::ANNOTATIONS_FILE, before.and_then(|texts| texts.annotations.as_ref())),
        }
    }
}

fn complain(path: &Path, error: &io::Error) {
    tracing::debug!(path = %path.display(), %error, "cannot read what the Downward API writes; the pod has none of it");
}

fn container(known: KnownContainer) -> Container {
    let ports = known.ports.into_iter().map(|port| ContainerPort { name: port.name, number: port.port });
    Container { name: known.name, image: known.image, ports: ports.collect(), ..Container::default() }
}

/// Tells the store of the pod whenever the files say something else.
pub(super) async fn run(info: &PodInfo, store: &Store, metrics: &Metrics) {
    let mut seen = info.read(None);
    info.tell_of(&seen, store);
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = info.read(Some(&seen));
        if now != seen {
            metrics.event();
            info.tell_of(&now, store);
            seen = now;
        }
    }
}

/// The entries of a file of the Downward API, `name="value"` a line (Kubernetes, `pkg/fieldpath`, `FormatMap`).
fn entries(text: &str) -> BTreeMap<String, String> {
    let entry = |line: &str| {
        let (name, value) = line.split_once('=')?;
        Some((name.to_owned(), unquoted(value)?))
    };
    text.lines().filter_map(entry).collect()
}

/// What Go's `strconv.Quote` has written.
fn unquoted(text: &str) -> Option<String> {
    let text = text.strip_prefix('"')?.strip_suffix('"')?;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        if character != '\\' {
            bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let digits = match rest.next()? {
            'a' => Err(7),
            'b' => Err(8),
            'f' => Err(12),
            'n' => Err(b'\n'),
            'r' => Err(b'\r'),
            't' => Err(b'\t'),
            'v' => Err(11),
            'x' => Ok(2),
            'u' => Ok(4),
            'U' => Ok(8),
            other @ ('\\' | '"' | '\'') => Err(u8::try_from(other).ok()?),
            _ => return None,
        };
        match digits {
            Err(byte) => bytes.push(byte),
            Ok(digits) => {
                let number = rest.as_str().get(..digits).and_then(|hex| u32::from_str_radix(hex, 16).ok())?;
                rest = rest.as_str().get(digits..)?.chars();
                // Two digits are a byte that is no character.
                if digits == 2 {
                    bytes.push(u8::try_from(number).ok()?);
                } else {
                    bytes.extend_from_slice(char::from_u32(number)?.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_downward_api_writes_is_read_as_it_was() {
        let text = "app=\"web\"\nnote=\"a \\\"b\\\" = c\\\\d\\ne\\u00ad\\U000e0001é\\xff\"\nempty=\"\"\ntorn=\"x\nbad=\"\\q\"\n";
        let entries = entries(text);
        assert_eq!(entries["app"], "web");
        assert_eq!(entries["note"], "a \"b\" = c\\d\ne\u{ad}\u{e0001}é\u{fffd}");
        assert_eq!(entries["empty"], "");
        assert_eq!(entries.len(), 3, "{entries:?}");
    }

    #[test]
    fn the_pod_is_what_the_injector_and_the_files_say_and_a_file_that_goes_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        write("labels", "app=\"web\"\n");
        let environment = Environment {
            namespace: "shop".into(),
            pod: "web-1".into(),
            pod_uid: "u-1".into(),
            pod_ip: Some("10.0.0.9".into()),
            ..Environment::default()
        };
        let names = ["app", sidecar::CONTAINER];
        let containers =
            names.map(|name| KnownContainer { name: name.into(), ..Default::default() }).to_vec();
        let known = KnownPod { owner: None, containers };
        let info = PodInfo::new(&environment, Some(&known), directory.path());
        let store = Store::new();
        info.tell(&store);
        let pod = store.pod("shop", "web-1", "u-1").unwrap();
        assert_eq!((pod.labels["app"].as_str(), pod.ip.as_deref()), ("web", Some("10.0.0.9")));
        assert_eq!(pod.containers.len(), 1, "not its own");
        let seen = info.read(None);
        write("annotations", "a=\"1\"\n");
        fs::remove_file(directory.path().join("labels")).unwrap();
        info.tell_of(&info.read(Some(&seen)), &store);
        let pod = store.pod("shop", "web-1", "u-1").unwrap();
        assert_eq!((pod.labels["app"].as_str(), pod.annotations["a"].as_str()), ("web", "1"));
    }
}
