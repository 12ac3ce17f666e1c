//! Where a sidecar finds the files that an app writes: in a volume that the app has there anyway, else in one that is added.

use serde_json::{Value, json};
use sidelight_contract::sidecar::{LOGS_PATH, LOGS_VOLUME_PREFIX};

use crate::pod::{Container, Pod, VolumeMount};

/// Directories over which an empty volume would hide what the container lives on.
const NEVER_HIDDEN: [&str; 19] = [
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/lib64",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/usr",
    "/var",
    "/var/lib",
    "/var/run",
    "/usr/local",
];

/// What has to be added for a sidecar to see an app's log files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogVolumes {
    /// Where the sidecar finds the files: globs.
    pub files: Vec<String>,
    /// The sidecar's mounts.
    pub mounts: Vec<Value>,
    /// Volumes that are added to the pod.
    pub volumes: Vec<Value>,
    /// Their names.
    pub names: Vec<String>,
    /// Mounts that are added to app containers, each with the container's place among `spec.containers`.
    pub app_mounts: Vec<(usize, Value)>,
    /// Containers that write the files.
    pub writers: Vec<usize>,
    /// For the pod's owner.
    pub warnings: Vec<String>,
}

/// Works out where the files are that `globs` name, absolute paths inside the containers. `size` is the limit of a volume that
/// is added.
///
/// # Errors
/// Why a directory cannot be shared; a text for the pod's owner.
pub fn log_volumes(pod: &Pod<'_>, globs: &[String], size: &str) -> Result<LogVolumes, String> {
    let mut globs: Vec<&String> = globs.iter().collect();
    // The outer directory first: the volume that it gets covers the inner ones.
    globs.sort_by_key(|glob| glob.matches('/').count());
    let mut found = LogVolumes::default();
    for glob in globs {
        if !found.take_mounted(pod, glob)? {
            let directory = directory_of(glob);
            let index = writer(pod, directory)?;
            let container = &pod.containers()[index];
            if !found.app_mounts.iter().any(|(at, mount)| *at == index && covers(mount, directory)) {
                found.add(index, container, directory, size)?;
            }
            found.watch(index, container, glob);
        }
    }
    found.open_for_inner_mounts();
    Ok(found)
}

fn directory_of(glob: &str) -> &str {
    glob.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// Whether a mount that is added has a directory in it.
fn covers(mount: &Value, directory: &str) -> bool {
    mount["mountPath"].as_str().is_some_and(|outer| is_within(directory, outer))
}

/// The mount that a directory of a container lies in: the one with the longest path.
fn covering<'a, 'p>(container: &'a Container<'p>, directory: &str) -> Option<&'a VolumeMount<'p>> {
    let mounts = container.volume_mounts.iter().flatten();
    mounts
        .filter(|mount| is_within(directory, mount.mount_path))
        .max_by_key(|mount| plain(mount.mount_path).len())
}

fn is_within(directory: &str, outer: &str) -> bool {
    directory.strip_prefix(plain(outer)).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn plain(path: &str) -> &str {
    path.trim_end_matches('/')
}

/// The container that kubectl means where none is named.
fn default_container(pod: &Pod<'_>) -> Option<usize> {
    let name = pod.annotation("kubectl.kubernetes.io/default-container")?;
    pod.containers().iter().position(|container| container.name == name)
}

/// The container that writes into a directory which none has mounted.
fn writer(pod: &Pod<'_>, directory: &str) -> Result<usize, String> {
    let containers = pod.containers();
    match default_container(pod) {
        Some(index) => Ok(index),
        None if containers.len() == 1 => Ok(0),
        None => Err(format!(
            "no container mounts a volume at {directory}, and which of {} writes there is not known; mount an emptyDir in that one, \
             or name it in the annotation kubectl.kubernetes.io/default-container",
            containers.len()
        )),
    }
}

// === impl LogVolumes ===

impl LogVolumes {
    /// Takes the files of a glob where containers have a volume at them that they can write to; false where none has. Files that several
    /// containers see are taken once: of the default container, else of the first.
    fn take_mounted(&mut self, pod: &Pod<'_>, glob: &str) -> Result<bool, String> {
        let mut files = Vec::new();
        let default = default_container(pod);
        let others = (0..pod.containers().len()).filter(|index| Some(*index) != default);
        for index in default.into_iter().chain(others) {
            let container = &pod.containers()[index];
            let Some(mount) = covering(container, directory_of(glob)) else { continue };
            let inside =
                (mount.name, mount.sub_path.unwrap_or_default(), &glob[plain(mount.mount_path).len()..]);
            if mount.read_only != Some(true) && !files.contains(&inside) {
                files.push(inside);
                self.share(index, container, mount)?;
                self.watch(index, container, glob);
            }
        }
        Ok(!files.is_empty())
    }

    /// A mount point inside another mount must be there, or be made: in one that is read-only it cannot be, and the sidecar, which may
    /// be first, would not start.
    fn open_for_inner_mounts(&mut self) {
        let paths: Vec<String> =
            self.mounts.iter().filter_map(|mount| mount["mountPath"].as_str().map(str::to_owned)).collect();
        for mount in &mut self.mounts {
            let outer = mount["mountPath"].as_str().unwrap_or_default().to_owned();
            if paths.iter().any(|path| *path != outer && is_within(path, &outer)) {
                mount.as_object_mut().map(|mount| mount.remove("readOnly"));
            }
        }
    }

    /// The sidecar has the volume where the container has it, below its own directory.
    fn share(
        &mut self,
        index: usize,
        container: &Container<'_>,
        mount: &VolumeMount<'_>,
    ) -> Result<(), String> {
        if mount.sub_path_expr.is_some_and(|expr| !expr.is_empty()) {
            return Err(format!(
                "container {:?} mounts {} by subPathExpr, whose variables a sidecar does not have; use subPath",
                container.name, mount.mount_path
            ));
        }
        let at = format!("{LOGS_PATH}/{}{}", container.name, plain(mount.mount_path));
        let mut shared = json!({ "name": mount.name, "mountPath": at, "readOnly": true });
        if let Some(path) = mount.sub_path.filter(|path| !path.is_empty()) {
            shared["subPath"] = json!(path);
        }
        if !self.mounts.contains(&shared) {
            self.mounts.push(shared);
        }
        if !self.writers.contains(&index) {
            self.writers.push(index);
        }
        Ok(())
    }

    /// Adds a volume where the container has none.
    fn add(
        &mut self,
        index: usize,
        container: &Container<'_>,
        directory: &str,
        size: &str,
    ) -> Result<(), String> {
        if NEVER_HIDDEN.contains(&directory) {
            return Err(format!(
                "{directory} cannot be shared: an empty volume there would hide what the container needs; write logs to a directory of their own"
            ));
        }
        let below =
            container.volume_mounts.iter().flatten().find(|mount| is_within(mount.mount_path, directory));
        if let Some(below) = below {
            return Err(format!(
                "{directory} cannot be shared: container {:?} has a volume below it, at {}; mount one at {directory} as well",
                container.name, below.mount_path
            ));
        }
        let name = format!("{LOGS_VOLUME_PREFIX}{}", self.names.len());
        self.volumes.push(json!({ "name": name, "emptyDir": { "sizeLimit": size } }));
        self.app_mounts.push((index, json!({ "name": name, "mountPath": directory })));
        let at = format!("{LOGS_PATH}/{}{directory}", container.name);
        self.mounts.push(json!({ "name": name, "mountPath": at, "readOnly": true }));
        self.names.push(name);
        self.writers.push(index);
        self.warnings.push(format!(
            "{directory} of {} is an empty volume now: what its image has there is hidden",
            container.name
        ));
        Ok(())
    }

    fn watch(&mut self, index: usize, container: &Container<'_>, glob: &str) {
        self.files.push(format!("{LOGS_PATH}/{}{glob}", container.name));
        if !self.writers.contains(&index) {
            self.writers.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(spec: Value, globs: &[&str]) -> Result<LogVolumes, String> {
        let object = json!({ "spec": spec });
        let globs: Vec<String> = globs.iter().map(|glob| (*glob).to_owned()).collect();
        log_volumes(&Pod::of(&object).unwrap(), &globs, "256Mi")
    }

    #[test]
    fn the_apps_own_volume_is_shared_the_one_with_the_longest_path() {
        let spec = json!({ "containers": [{ "name": "web", "volumeMounts": [
            { "name": "all", "mountPath": "/var" },
            { "name": "logs", "mountPath": "/var/log/", "subPath": "web" },
            { "name": "other", "mountPath": "/var/log/app2" },
        ] }] });
        let found = found(spec, &["/var/log/app/*.log"]).unwrap();
        assert_eq!(found.files, ["/var/log/sidelight/web/var/log/app/*.log"]);
        let mount = json!({ "name": "logs", "mountPath": "/var/log/sidelight/web/var/log", "readOnly": true, "subPath": "web" });
        assert_eq!(found.mounts, [mount]);
        assert_eq!((found.volumes, found.app_mounts, found.warnings), (vec![], vec![], vec![]));
    }

    #[test]
    fn a_directory_of_the_image_becomes_a_volume_of_a_limited_size() {
        let found = found(
            json!({ "containers": [{ "name": "web" }] }),
            &["/logs/a.log", "/logs/sub/*.log", "/logs/b.log"],
        )
        .unwrap();
        assert_eq!(
            found.volumes,
            [json!({ "name": "sidelight-logs-0", "emptyDir": { "sizeLimit": "256Mi" } })]
        );
        assert_eq!(found.app_mounts, [(0, json!({ "name": "sidelight-logs-0", "mountPath": "/logs" }))]);
        assert_eq!(found.files.len(), 3);
        assert_eq!(found.mounts.len(), 1);
        assert!(found.warnings[0].contains("/logs of web"));
    }

    #[test]
    fn files_that_two_containers_see_are_read_once_and_a_reader_is_no_writer() {
        let mount =
            |path: &str, read_only: bool| json!([{ "name": "x", "mountPath": path, "readOnly": read_only }]);
        let spec = json!({ "containers": [
            { "name": "reader", "volumeMounts": mount("/logs", true) },
            { "name": "web", "volumeMounts": mount("/logs", false) },
            { "name": "twin", "volumeMounts": mount("/logs", false) } ] });
        let found = found(spec, &["/logs/*.log"]).unwrap();
        assert_eq!(found.files, ["/var/log/sidelight/web/logs/*.log"]);
        assert_eq!(found.writers, [1]);
    }

    #[test]
    fn a_mount_that_has_another_below_it_can_be_written_to() {
        let spec = json!({ "containers": [{ "name": "web", "volumeMounts": [
            { "name": "a", "mountPath": "/var/log" }, { "name": "b", "mountPath": "/var/log/app2" } ] }] });
        let found = found(spec, &["/var/log/app/*.log", "/var/log/app2/*.log"]).unwrap();
        let read_only = found.mounts.iter().map(|mount| mount.get("readOnly").is_some()).collect::<Vec<_>>();
        assert_eq!(read_only, [false, true]);
    }

    #[test]
    fn each_container_that_mounts_the_directory_is_read() {
        let mount = |volume: &str| json!([{ "name": volume, "mountPath": "/logs" }]);
        let spec = json!({ "containers": [
            { "name": "a", "volumeMounts": mount("x") }, { "name": "b", "volumeMounts": mount("y") }, { "name": "c" } ] });
        let found = found(spec, &["/logs/*.log"]).unwrap();
        assert_eq!(found.files, ["/var/log/sidelight/a/logs/*.log", "/var/log/sidelight/b/logs/*.log"]);
        assert_eq!(found.writers, [0, 1]);
    }

    #[test]
    fn what_cannot_be_shared_is_told_with_the_way_out() {
        let below = json!({ "containers": [{ "name": "web", "volumeMounts": [{ "name": "v", "mountPath": "/logs/audit" }] }] });
        let expr = json!({ "containers": [{ "name": "web", "volumeMounts": [
            { "name": "v", "mountPath": "/logs", "subPathExpr": "$(POD)" }] }] });
        let two = json!({ "containers": [{ "name": "web" }, { "name": "db" }] });
        for (spec, glob, part) in [
            (below, "/logs/*.log", "has a volume below it, at /logs/audit"),
            (expr, "/logs/*.log", "use subPath"),
            (two, "/logs/*.log", "default-container"),
            (json!({ "containers": [{ "name": "web" }] }), "/etc/*.log", "/etc cannot be shared"),
        ] {
            let error = found(spec, &[glob]).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_default_container_is_the_one_that_writes() {
        let object = json!({
            "metadata": { "annotations": { "kubectl.kubernetes.io/default-container": "db" } },
            "spec": { "containers": [{ "name": "web" }, { "name": "db" }] } });
        let found = log_volumes(&Pod::of(&object).unwrap(), &["/logs/a".to_owned()], "1Gi").unwrap();
        assert_eq!(found.app_mounts[0].0, 1);
    }
}
