//! What only a sidecar's configuration has: the files to read, and what the injector knew of the pod.

use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};
use sidelight_contract::glob::{self, FILE_GLOB, file_glob};

use super::mistakes::Purpose;
use super::variables::Environment;
use super::{Config, read};
use crate::cluster::Owner;

/// Files that are not read: compressed copies, of which the original was.
const PACKED: [&str; 5] = [".gz", ".zst", ".bz2", ".xz", ".zip"];

/// Files of one directory: an absolute path, with `*` and `?` in its last part only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileGlob {
    directory: PathBuf,
    name: String,
}

/// What the injector knew of the pod when it was admitted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KnownPod {
    /// What it belongs to in the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Its containers, none where that is not known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<KnownContainer>,
}

/// A container of the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KnownContainer {
    /// Name.
    pub name: String,
    /// Image as the pod asks for it.
    pub image: String,
    /// The TCP ports that it declares.
    pub ports: Vec<KnownPort>,
}

/// A port that a container declares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KnownPort {
    /// Its name, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its number.
    pub port: u16,
}

// === impl Config ===

impl Config {
    /// Validates the text of a sidecar's config as it can be done anywhere: no file that it names is read. Gives what is only
    /// to be told of it, unknown keys among it, since injector and sidecar may be one version apart.
    ///
    /// # Errors
    /// All mistakes, one line each, with the path of the key and what is allowed there.
    pub fn parse_sidecar(
        text: &str,
        environment: Environment<'_>,
    ) -> Result<(Self, Vec<String>), Vec<String>> {
        read::config(text, environment, Purpose::SidecarElsewhere)
    }

    /// Validates the text of a sidecar's config where the sidecar runs: reads the files that it names.
    ///
    /// # Errors
    /// As for [`Config::parse_sidecar`].
    pub fn load_sidecar(
        text: &str,
        environment: Environment<'_>,
    ) -> Result<(Self, Vec<String>), Vec<String>> {
        read::config(text, environment, Purpose::Sidecar)
    }
}

// === impl FileGlob ===

impl FileGlob {
    /// Reads a glob.
    ///
    /// # Errors
    /// What is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (directory, name) =
            file_glob(text).ok_or_else(|| format!("{text:?} is not allowed: {FILE_GLOB}"))?;
        Ok(FileGlob { directory: PathBuf::from(directory), name: name.to_owned() })
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether a file of the directory is meant by its name.
    pub fn matches(&self, name: &str) -> bool {
        glob::matches(&self.name, name) && !PACKED.iter().any(|ending| name.ends_with(ending))
    }
}

impl std::fmt::Display for FileGlob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.directory.display(), self.name)
    }
}

impl Serialize for FileGlob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_is_of_one_directory_and_means_no_packed_file() {
        let glob = FileGlob::parse("/srv/logs/app*.log*").unwrap();
        assert_eq!(glob.directory(), Path::new("/srv/logs"));
        for (name, is_meant) in [
            ("app.log", true),
            ("app-1.log.2", true),
            ("app.log.1.gz", false),
            ("app.log.zst", false),
            ("other.log", false),
        ] {
            assert_eq!(glob.matches(name), is_meant, "{name}");
        }
        for bad in ["", "a.log", "logs/a.log", "/a.log", "/a/", "/*/a", "/a/../b", "/a//b", "/a/./b", "/a/.."]
        {
            assert!(FileGlob::parse(bad).is_err(), "{bad:?}");
        }
    }
}
