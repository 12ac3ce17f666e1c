//! How each container's lines are handled, as what Kubernetes says of its pod comes in.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Discovery, Tree};
use crate::config::MetadataSource;
use crate::logs::events::Workload;
use crate::logs::layout::ContainerPath;
use crate::logs::settings::{Metadata, Settings};

impl Tree {
    pub(super) fn awaits_metadata(&self) -> bool {
        self.pods
            .values()
            .flat_map(HashMap::values)
            .any(|known| !known.waited && known.container.settings().pod.is_none())
    }

    /// Resolves the settings of containers whose pod is news, or has been waited for long enough.
    pub(super) fn resolve_settings(&mut self) {
        let version = self.discovery.pods.version();
        let is_news = self.pods_version.replace(version) != Some(version);
        let wait = self.discovery.config.kubernetes.metadata_wait;
        for known in self.pods.values_mut().flat_map(HashMap::values_mut) {
            let path = &known.container.path;
            let before = known.container.settings();
            let waited = known.seen.elapsed() >= wait;
            let waited_long_enough = waited && !known.waited && before.pod.is_none();
            known.waited |= waited;
            if !is_news && !waited_long_enough {
                continue;
            }
            let metadata = self.discovery.metadata(path, known.waited);
            let same = match (&before.pod, metadata.pod()) {
                (Some(before), Some(now)) => Arc::ptr_eq(before, now),
                // A pod that Kubernetes has forgotten keeps what was known of it.
                (Some(_), None) => true,
                (None, None) => !waited_long_enough,
                (None, Some(_)) => false,
            };
            if same {
                continue;
            }
            if matches!(metadata, Metadata::Missing) {
                self.discovery.metrics.metadata_partial.inc();
            }
            let settings = self.discovery.settings(path, &metadata);
            report_problems(path, &settings, &before.problems);
            known.container.set_settings(settings);
            self.discovery.inventory.changed(&known.container);
        }
    }
}

impl Discovery {
    /// How the lines of a container are handled, with this known of its pod.
    pub(super) fn settings(&self, path: &ContainerPath, metadata: &Metadata) -> Settings {
        let mut settings = Settings::resolve(&self.config, path, metadata, &self.own_pod);
        // Until the workload is known, a pod's records would be counted as another's.
        if self.config.logs.events && !matches!(metadata, Metadata::Awaited) {
            let name = metadata.pod().map_or(path.pod.as_str(), |pod| pod.workload()).to_owned();
            let (namespace, container) = (path.namespace.clone(), path.container.clone());
            settings.events = Some(self.events.of(Workload { namespace, name, container }));
        }
        settings
    }

    pub(super) fn metadata(&self, path: &ContainerPath, waited: bool) -> Metadata {
        match self.pods.pod(&path.namespace, &path.pod, &path.uid) {
            Some(pod) => Metadata::Known(pod),
            None if self.config.kubernetes.source == MetadataSource::None => Metadata::NotAsked,
            None if waited => Metadata::Missing,
            None => Metadata::Awaited,
        }
    }
}

/// Says what is wrong with a pod's annotations, unless that was said before.
pub(super) fn report_problems(path: &ContainerPath, settings: &Settings, before: &[String]) {
    for problem in settings.problems.iter().filter(|problem| !before.contains(problem)) {
        let ContainerPath { namespace, pod, container, .. } = path;
        tracing::warn!(namespace, pod, container, problem, "an annotation is ignored");
    }
}
