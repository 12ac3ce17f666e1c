//! How the kubelet lays log files out: `ROOT/NAMESPACE_POD_UID/CONTAINER/RESTART.log[.STAMP[.gz]]`. A sidecar's files lie
//! where the app writes them; each is a log of its own.
//!
//! Source: `pkg/kubelet/kuberuntime` (`BuildPodLogsDirectory`) and `pkg/kubelet/logs/container_log_manager.go`.

use std::cmp::Ordering;
use std::fmt;

/// Whose log it is: what the path of a container's log directory says, or a sidecar knows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerPath {
    /// Namespace.
    pub namespace: String,
    /// Pod name.
    pub pod: String,
    /// Pod UID; for a static pod the hash of its manifest.
    pub uid: String,
    /// Container name; empty where a sidecar does not know it.
    pub container: String,
    /// The log file's path in the container, where the app writes it by itself, without the head that a runtime puts before
    /// each line.
    pub file: Option<String>,
}

/// The name of one log file, in the order in which the files were written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogName {
    /// Restart count of the container.
    pub restart: u32,
    /// When it was rotated, `YYYYMMDD-HHMMSS`; none: still written.
    pub stamp: Option<String>,
    /// Whether the kubelet has compressed it.
    pub gzip: bool,
}

/// The name of a pod's directory.
pub fn pod_directory(namespace: &str, pod: &str, uid: &str) -> String {
    format!("{namespace}_{pod}_{uid}")
}

// === impl ContainerPath ===

impl ContainerPath {
    /// Reads the two directory names. Namespaces, pods and containers cannot contain `_`, so the split is exact.
    pub fn parse(pod_directory: &str, container_directory: &str) -> Option<Self> {
        let mut parts = pod_directory.splitn(3, '_');
        let (namespace, pod, uid) = (parts.next()?, parts.next()?, parts.next()?);
        let whole = [namespace, pod, uid, container_directory]
            .iter()
            .all(|part| !part.is_empty() && !part.contains('_'));
        whole.then(|| ContainerPath {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            uid: uid.to_owned(),
            container: container_directory.to_owned(),
            file: None,
        })
    }

    /// The name of the file that an app writes by itself.
    pub fn file_name(&self) -> Option<&str> {
        self.file.as_deref()?.rsplit('/').next()
    }

    /// Whether the app writes the file by itself.
    pub fn is_plain(&self) -> bool {
        self.file.is_some()
    }
}

// === impl LogName ===

impl LogName {
    /// That of any file that an app writes by itself: what is newer is known by when it was found.
    pub const PLAIN: Self = LogName { restart: 0, stamp: None, gzip: false };

    /// Reads a file name. Temporary files and all others are none of ours.
    pub fn parse(name: &str) -> Option<Self> {
        let (restart, rest) = name.split_once(".log")?;
        let restart = restart.parse().ok()?;
        if rest.is_empty() {
            return Some(LogName { restart, stamp: None, gzip: false });
        }
        let stamp = rest.strip_prefix('.')?;
        let (stamp, gzip) = match stamp.strip_suffix(".gz") {
            Some(stamp) => (stamp, true),
            None => (stamp, false),
        };
        let is_stamp = !stamp.is_empty() && stamp.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        is_stamp.then(|| LogName { restart, stamp: Some(stamp.to_owned()), gzip })
    }
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.log", self.restart)?;
        if let Some(stamp) = &self.stamp {
            write!(f, ".{stamp}")?;
        }
        if self.gzip { write!(f, ".gz") } else { Ok(()) }
    }
}

impl Ord for LogName {
    fn cmp(&self, other: &Self) -> Ordering {
        let stamps = match (&self.stamp, &other.stamp) {
            (Some(a), Some(b)) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        };
        self.restart.cmp(&other.restart).then(stamps).then(self.gzip.cmp(&other.gzip))
    }
}

impl PartialOrd for LogName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_sort_in_the_order_in_which_they_were_written() {
        let written =
            ["0.log.20260101-000000.gz", "0.log.20260101-000010", "0.log", "1.log.20260101-000005", "1.log"];
        let mut names: Vec<_> = written.iter().rev().map(|name| LogName::parse(name).unwrap()).collect();
        names.sort();
        assert_eq!(names.iter().map(ToString::to_string).collect::<Vec<_>>(), written);
    }

    #[test]
    fn names_that_are_not_log_files_are_left_alone() {
        for name in
            ["0.log.20260101-000000.tmp", "0.log.tmp", "x.log", "0.txt", ".log", "0.log.", "0.log.x.gz"]
        {
            assert_eq!(LogName::parse(name), None, "{name}");
        }
        for directory in ["ns_pod", "ns__uid", "ns_pod_uid_x", "", "_"] {
            assert_eq!(ContainerPath::parse(directory, "c"), None, "{directory}");
        }
    }
}
