//! The kubelet's tree: pods, their containers, and the directories of those.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::files::{directories, list_logs};
use super::{Tree, Watched, is_idle};
use crate::logs::layout::ContainerPath;
use crate::logs::open::Root;

impl Tree {
    pub(super) fn scan_tree(&mut self) {
        self.scan_root();
        let pods: Vec<OsString> = self.pods.keys().cloned().collect();
        for pod in pods {
            self.scan_pod(&pod);
            let names: Vec<OsString> =
                self.pods.get(&pod).map(|pod| pod.keys().cloned().collect()).unwrap_or_default();
            for name in names {
                self.scan_container(&pod, &name);
            }
        }
    }

    pub(super) fn scan_root(&mut self) {
        let path = self.discovery.config.logs.root.clone();
        // Another may have been put in its place, by a mount for example: nothing would be found below the old one.
        if !self.root.as_ref().is_some_and(Root::is_in_place) {
            match Root::open(&path) {
                Ok(root) => (self.root, self.root_missing) = (Some(root), false),
                Err(error) => {
                    self.root = None;
                    if !std::mem::replace(&mut self.root_missing, true) {
                        tracing::warn!(root = %path.display(), %error, "cannot open logs.root, trying again every second; mount it or correct the path");
                    }
                    return;
                }
            }
        }
        self.watch(&path, Watched::Root);
        let Ok(present) = directories(&path) else {
            self.unseen.everything = true;
            return;
        };
        for pod in &present {
            if !self.pods.contains_key(pod) {
                self.pods.insert(pod.clone(), HashMap::new());
                self.scan_pod(pod);
            }
        }
        let gone: Vec<OsString> = self.pods.keys().filter(|pod| !present.contains(pod)).cloned().collect();
        for pod in gone {
            self.scan_pod(&pod);
        }
    }

    pub(super) fn scan_pod(&mut self, pod: &OsString) {
        self.discovery.heartbeat.beat();
        let directory = self.discovery.config.logs.root.join(pod);
        self.watch(&directory, Watched::Pod(pod.clone()));
        let present = self.containers_in(&directory);
        for name in &present {
            if self.pods.get(pod).is_some_and(|containers| !containers.contains_key(name)) {
                self.add_container(pod, name, directory.join(name));
            }
        }
        let containers = self.pods.get(pod).map(|containers| containers.keys().cloned().collect::<Vec<_>>());
        for name in containers.unwrap_or_default() {
            if !present.contains(&name) {
                self.scan_container(pod, &name);
            }
        }
        if self.pods.get(pod).is_some_and(HashMap::is_empty) && !directory.exists() {
            self.pods.remove(pod);
        }
    }

    /// A directory that is gone has none.
    fn containers_in(&mut self, directory: &Path) -> Vec<OsString> {
        directories(directory).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                self.unseen.pods.insert(directory.to_owned());
            }
            Vec::new()
        })
    }

    fn add_container(&mut self, pod: &OsString, name: &OsString, directory: PathBuf) {
        let path = pod.to_str().zip(name.to_str()).and_then(|(pod, name)| ContainerPath::parse(pod, name));
        let Some(path) = path else {
            tracing::debug!(directory = %directory.display(), "not the log directory of a container");
            return;
        };
        self.register(pod.clone(), name.clone(), path, directory);
        self.scan_container(pod, name);
    }

    pub(super) fn scan_container(&mut self, pod: &OsString, name: &OsString) {
        let Some(container) =
            self.pods.get(pod).and_then(|pod| pod.get(name)).map(|known| known.container.clone())
        else {
            return;
        };
        self.watch(&container.directory, Watched::Container(pod.clone(), name.clone()));
        let before = container.generations();
        let mut problem = None;
        match list_logs(&container.directory) {
            Ok(files) => {
                container.set_gone(false);
                problem = self.update_generations(&container, files);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                container.set_gone(true);
                self.update_generations(&container, Vec::new());
                if container.generations().is_empty() {
                    self.discovery.inventory.remove(&container);
                    self.pods.get_mut(pod).map(|containers| containers.remove(name));
                    return;
                }
            }
            Err(error) => {
                self.unseen.in_pod_of(&container);
                problem =
                    Some(format!("cannot list {}: {error}; grant read access", container.directory.display()))
            }
        }
        if container.set_problem(problem.clone())
            && let Some(problem) = problem
        {
            tracing::warn!(
                namespace = container.path.namespace,
                pod = container.path.pod,
                problem,
                "a container's logs cannot be read"
            );
        }
        if !is_idle(&before, &container) {
            self.discovery.inventory.changed(&container);
        }
    }
}
