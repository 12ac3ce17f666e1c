//! The Forward tag: a template of the operator's, filled once per container.

use std::str::FromStr;

use crate::cluster::Pod;
use crate::logs::layout::ContainerPath;

/// A parsed template such as `kube.{namespace}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagTemplate(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Namespace,
    Pod,
    Container,
    ContainerId,
    Node,
    Label(String),
}

// === impl TagTemplate ===

impl TagTemplate {
    /// Whether the tag depends on what only Kubernetes knows.
    pub fn needs_metadata(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Label(_) | Piece::ContainerId))
    }

    /// The tag of a container. `.` in a value becomes `_`, an empty one `none`; `suffix` is the pod's own `logs.tag`.
    pub fn render(
        &self,
        node: &str,
        path: &ContainerPath,
        pod: Option<&Pod>,
        suffix: Option<&str>,
    ) -> String {
        let mut tag = String::new();
        for piece in &self.0 {
            let value = match piece {
                Piece::Text(text) => {
                    tag.push_str(text);
                    continue;
                }
                Piece::Namespace => &path.namespace,
                Piece::Pod => &path.pod,
                Piece::Container => &path.container,
                Piece::Node => node,
                Piece::ContainerId => pod
                    .and_then(|pod| pod.containers.iter().find(|container| container.name == path.container))
                    .map_or("", |container| container.id.as_deref().unwrap_or("")),
                Piece::Label(name) => pod.and_then(|pod| pod.labels.get(name)).map_or("", String::as_str),
            };
            tag.push_str(&if value.is_empty() { "none".to_owned() } else { value.replace('.', "_") });
        }
        if let Some(suffix) = suffix {
            tag.push('.');
            tag.push_str(suffix);
        }
        tag
    }
}

impl FromStr for TagTemplate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, placeholder)) = rest.split_once('{') {
            let (name, after) =
                placeholder.split_once('}').ok_or_else(|| format!("{text:?} has a {{ without its }}"))?;
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(match name {
                "namespace" => Piece::Namespace,
                "pod" => Piece::Pod,
                "container" => Piece::Container,
                "container_id" => Piece::ContainerId,
                "node" => Piece::Node,
                other => match other.strip_prefix("label.") {
                    Some(label) if !label.is_empty() => Piece::Label(label.to_owned()),
                    _ => {
                        return Err(format!(
                            "{{{other}}} is unknown; allowed: {{namespace}} {{pod}} {{container}} {{container_id}} {{node}} {{label.NAME}}"
                        ));
                    }
                },
            });
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        if pieces.is_empty() {
            return Err("the tag must not be empty".to_owned());
        }
        Ok(TagTemplate(pieces))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_filled_with_dots_replaced_and_empty_values_named() {
        let path = ContainerPath::parse("my.ns_web-1_uid-1", "app").unwrap();
        let template: TagTemplate = "kube.{namespace}.{container}.{label.app}.x".parse().unwrap();
        assert_eq!(template.render("n", &path, None, Some("own")), "kube.my_ns.app.none.x.own");
        assert!(template.needs_metadata());
        assert!("kube.{nope}".parse::<TagTemplate>().unwrap_err().contains("allowed"));
        assert!("kube.{namespace".parse::<TagTemplate>().is_err());
    }
}
