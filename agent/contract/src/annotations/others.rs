//! The marks by which pods opt out of other log agents, for clusters that move from those.
//!
//! Fluent Bit: annotation `fluentbit.io/exclude[_stdout|_stderr][-CONTAINER]`. Vector: label `vector.dev/exclude`, annotation
//! `vector.dev/exclude-containers`.

/// Which streams of a container are not to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exclusion {
    /// Its standard output.
    pub stdout: bool,
    /// Its standard error.
    pub stderr: bool,
}

/// What other agents' marks on a pod mean for one of its containers.
pub fn excluded_by_others<'a>(
    annotations: impl IntoIterator<Item = (&'a str, &'a str)> + Clone,
    labels: impl IntoIterator<Item = (&'a str, &'a str)>,
    container: &str,
) -> Exclusion {
    // Vector selects pods by `vector.dev/exclude!=true`: exactly this text.
    let by_label = labels.into_iter().any(|label| label == ("vector.dev/exclude", "true"));
    let by_name = annotations
        .clone()
        .into_iter()
        .filter(|(key, _)| *key == "vector.dev/exclude-containers")
        .any(|(_, names)| names.split(',').any(|name| name.trim() == container));
    let excluded =
        |stream| by_label || by_name || excluded_by_fluent_bit(annotations.clone(), stream, container);
    Exclusion { stdout: excluded("stdout"), stderr: excluded("stderr") }
}

/// The most particular mark decides, whatever the order in which the API lists them.
fn excluded_by_fluent_bit<'a>(
    annotations: impl IntoIterator<Item = (&'a str, &'a str)> + Clone,
    stream: &str,
    container: &str,
) -> bool {
    [format!("_{stream}-{container}"), format!("-{container}"), format!("_{stream}"), String::new()]
        .iter()
        .find_map(|mark| {
            annotations.clone().into_iter().find_map(|(key, value)| {
                (key.strip_prefix("fluentbit.io/exclude")? == mark).then(|| is_true(value))
            })
        })
        .unwrap_or(false)
}

/// As Fluent Bit reads a boolean; what it cannot read it takes as false.
fn is_true(value: &str) -> bool {
    ["true", "on", "yes"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Exclusion = Exclusion { stdout: true, stderr: true };
    const NEITHER: Exclusion = Exclusion { stdout: false, stderr: false };

    fn annotated(annotations: &[(&'static str, &'static str)], container: &str) -> Exclusion {
        excluded_by_others(annotations.iter().copied(), [], container)
    }

    #[test]
    fn an_unmarked_pod_is_read() {
        assert_eq!(annotated(&[("fluentbit.io/parser", "apache")], "web"), NEITHER);
    }

    #[test]
    fn fluent_bit_excludes_a_pod_a_stream_or_a_container() {
        assert_eq!(annotated(&[("fluentbit.io/exclude", "true")], "web"), BOTH);
        assert_eq!(
            annotated(&[("fluentbit.io/exclude_stderr", "true")], "web"),
            Exclusion { stdout: false, stderr: true }
        );
        assert_eq!(annotated(&[("fluentbit.io/exclude-web", "true")], "web"), BOTH);
        assert_eq!(annotated(&[("fluentbit.io/exclude-web", "true")], "app"), NEITHER);
        assert_eq!(
            annotated(&[("fluentbit.io/exclude_stdout-web", "true")], "web"),
            Exclusion { stdout: true, stderr: false }
        );
    }

    #[test]
    fn the_most_particular_mark_of_fluent_bit_decides() {
        let marks = [
            ("fluentbit.io/exclude", "true"),
            ("fluentbit.io/exclude-web", "false"),
            ("fluentbit.io/exclude_stderr-web", "on"),
        ];
        assert_eq!(annotated(&marks, "web"), Exclusion { stdout: false, stderr: true });
        assert_eq!(annotated(&marks, "app"), BOTH);
    }

    #[test]
    fn booleans_are_read_as_fluent_bit_does() {
        for (value, excluded) in
            [("True", true), ("YES", true), ("on", true), ("1", false), ("off", false), ("", false)]
        {
            assert_eq!(annotated(&[("fluentbit.io/exclude", value)], "web").stdout, excluded, "{value:?}");
        }
    }

    #[test]
    fn vector_excludes_a_pod_by_its_label() {
        let labelled = |value| excluded_by_others([], [("app", "web"), ("vector.dev/exclude", value)], "web");
        assert_eq!(labelled("true"), BOTH);
        assert_eq!(labelled("yes"), NEITHER);
        assert_eq!(
            annotated(&[("vector.dev/exclude", "true")], "web"),
            NEITHER,
            "as an annotation it means nothing"
        );
    }

    #[test]
    fn vector_excludes_containers_by_a_list() {
        let list = [("vector.dev/exclude-containers", "web, app")];
        assert_eq!(annotated(&list, "web"), BOTH);
        assert_eq!(annotated(&list, "app"), BOTH);
        assert_eq!(annotated(&list, "we"), NEITHER);
    }
}
