//! Manifests as nobody would write them, in block style, with comments wherever one may stand: four properties hold.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

use super::tests::settings;
use super::*;
use crate::decide::SAFE_TO_EVICT;
use crate::decide::tests::config;
use crate::patch::apply;
use crate::yaml::values;

/// How a text is laid out.
#[derive(Clone, Debug)]
struct Hand {
    dash: usize,
    step: usize,
    newline: &'static str,
    is_ended: bool,
    /// What to do at each line; taken in turn.
    whims: Vec<u8>,
}

/// Writes a value down, each line by a whim.
struct Writer<'h> {
    hand: &'h Hand,
    lines: usize,
    text: String,
}

impl Writer<'_> {
    fn whim(&mut self) -> u8 {
        self.lines += 1;
        self.hand.whims[self.lines % self.hand.whims.len()]
    }

    fn line(&mut self, column: usize, text: &str) {
        let newline = self.hand.newline;
        let whim = self.whim();
        match whim {
            0 => self.text.push_str(&format!("{:column$}# - above: {{{newline}", "")),
            1 => self.text.push_str(newline),
            2 => self.text.push_str(&format!("# far left{newline}{newline}")),
            _ => {}
        }
        let behind = if whim == 3 && !text.ends_with('|') { "  # behind: - it" } else { "" };
        self.text.push_str(&format!("{:column$}{text}{behind}{newline}", ""));
    }

    fn scalar(&mut self, value: &Value) -> String {
        match value {
            Value::Null => ["", " null", " ~"][usize::from(self.whim()) % 3].to_owned(),
            Value::String(text) if text.contains(['"', '\\']) => format!(" {value}"),
            Value::String(text) => match self.whim() % 3 {
                0 if text.starts_with(|c: char| c.is_ascii_lowercase())
                    && text != "true"
                    && !text.contains('#') =>
                {
                    format!(" {text}")
                }
                1 => format!(" '{text}'"),
                _ => format!(" \"{text}\""),
            },
            other => format!(" {other}"),
        }
    }

    fn entries(&mut self, head: &str, column: usize, entries: &Map<String, Value>) {
        for (index, (key, value)) in entries.iter().enumerate() {
            let (dash, at) = if index == 0 { (head, column - head.len()) } else { ("", column) };
            match value {
                Value::Object(below) if !below.is_empty() => {
                    self.line(at, &format!("{dash}{key}:"));
                    self.entries("", column + self.hand.step, below);
                }
                Value::Array(items) if !items.is_empty() => {
                    self.line(at, &format!("{dash}{key}:"));
                    items.iter().for_each(|item| self.item(column + self.hand.dash, item));
                }
                Value::String(text) if text.contains(' ') && self.whim() < 6 => {
                    self.line(at, &format!("{dash}{key}: |-"));
                    let inner = column + 2;
                    self.text.push_str(&format!("{:inner$}{text}{}", "", self.hand.newline));
                }
                scalar => {
                    let written = self.scalar(scalar);
                    self.line(at, &format!("{dash}{key}:{written}"));
                }
            }
        }
    }

    fn item(&mut self, column: usize, item: &Value) {
        match item {
            Value::Object(entries) if !entries.is_empty() => self.entries("- ", column + 2, entries),
            scalar => {
                let written = self.scalar(scalar);
                self.line(column, &format!("-{written}"));
            }
        }
    }
}

fn written(value: &Value, hand: &Hand) -> String {
    let mut writer = Writer { hand, lines: 0, text: String::new() };
    writer.entries("", 0, value.as_object().unwrap());
    if !hand.is_ended {
        writer.text.truncate(writer.text.trim_end().len());
    }
    writer.text
}

fn hands() -> impl Strategy<Value = Hand> {
    let whims = proptest::collection::vec(0..12_u8, 1..40);
    (select(vec![0, 2, 4]), select(vec![2, 4]), select(vec!["\n", "\r\n"]), any::<bool>(), whims)
        .prop_map(|(dash, step, newline, is_ended, whims)| Hand { dash, step, newline, is_ended, whims })
}

fn some(members: Vec<(&'static str, Vec<Value>)>) -> BoxedStrategy<Value> {
    let members: Vec<_> = members
        .into_iter()
        .map(|(name, values)| {
            proptest::option::of(select(values))
                .prop_map(move |value| value.map(|value| (name.to_owned(), value)))
        })
        .collect();
    members.prop_map(|members| Value::Object(members.into_iter().flatten().collect())).boxed()
}

fn containers(least: usize) -> BoxedStrategy<Value> {
    let container = |name: &'static str| {
        let members = some(vec![
            ("args", vec![json!(["a b", "c"]), json!([])]),
            ("env", vec![json!([{ "name": "A", "value": "x # y" }, { "name": "B" }]), Value::Null]),
            ("ports", vec![json!([{ "containerPort": 9614 }])]),
            ("volumeMounts", vec![json!([{ "name": "v", "mountPath": "/data" }]), json!([]), Value::Null]),
            ("zeta", vec![json!({ "a": { "b": [{ "c": [1] }] } }), json!({})]),
        ]);
        members.prop_map(move |mut container| {
            container["name"] = json!(name);
            container
        })
    };
    subsequence(vec!["web", "db", "proxy"], least..=3)
        .prop_flat_map(move |names| names.into_iter().map(container).collect::<Vec<_>>())
        .prop_map(Value::Array)
        .boxed()
}

fn templates() -> impl Strategy<Value = Value> {
    let annotations = some(vec![
        (
            "sidelight.dev/inject.logs",
            vec![json!("/logs/*.log"), json!("/data/x"), json!("/logs/a,/logs2/b")],
        ),
        ("sidelight.dev/metrics", vec![json!("true")]),
        ("sidelight.dev/inject.order", vec![json!("first"), json!("last")]),
        ("kubectl.kubernetes.io/default-container", vec![json!("web")]),
        (SAFE_TO_EVICT, vec![json!("v"), json!("cache,v")]),
        ("other", vec![json!("some text")]),
    ]);
    let spec = some(vec![
        ("volumes", vec![json!([{ "name": "v", "emptyDir": {} }]), json!([]), Value::Null]),
        ("restartPolicy", vec![json!("Always")]),
        ("zone", vec![Value::Null, json!("last one")]),
    ]);
    (annotations, any::<bool>(), spec, containers(1), proptest::option::of(containers(0))).prop_map(
        |(mut annotations, asks, mut spec, containers, init)| {
            if asks {
                annotations["sidelight.dev/inject"] = json!("true");
            }
            spec["containers"] = containers;
            if let Some(init) = init {
                spec["initContainers"] = init;
            }
            json!({ "metadata": { "annotations": annotations }, "spec": spec })
        },
    )
}

fn one(template: Value, kind: &str) -> Value {
    if kind == "Pod" {
        let mut pod = template;
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        return pod;
    }
    json!({ "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": "web" }, "spec": { "template": template } })
}

fn documents() -> impl Strategy<Value = Value> {
    let single =
        || (templates(), select(vec!["Pod", "Deployment"])).prop_map(|(template, kind)| one(template, kind));
    prop_oneof![
        4 => single(),
        1 => proptest::collection::vec(single(), 1..3).prop_map(|items| json!({ "apiVersion": "v1", "kind": "List", "items": items })),
    ]
}

/// Whether the lines of `text` are in `result` as they are, in their order. One that ends in an empty value or an empty list
/// may go on otherwise there, and the autoscaler's list may be longer.
fn keeps(text: &str, result: &str) -> bool {
    let mut found = result.lines();
    text.lines().all(|line| {
        let written = line.split(" #").next().unwrap_or(line).trim_end();
        let start =
            ["null", "~", "[]"].iter().find_map(|empty| written.strip_suffix(empty)).map(str::trim_end);
        found.any(|now| {
            now == line
                || start.is_some_and(|start| now.starts_with(start))
                || (line.contains(SAFE_TO_EVICT) && now.contains(SAFE_TO_EVICT))
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_iters: 500, ..ProptestConfig::default() })]

    #[test]
    fn inject_keeps_every_other_line_and_uninject_gives_the_bytes_back(
        documents in proptest::collection::vec((documents(), hands()), 1..4),
        native in any::<bool>(),
    ) {
        // One kind of line break in a file; only the last document may lack it at its end.
        let last = documents.len() - 1;
        let newline = documents[0].1.newline;
        let parts: Vec<String> = documents.iter().enumerate().map(|(index, (value, hand))| {
            let hand = Hand { newline, is_ended: hand.is_ended || index < last, ..hand.clone() };
            written(value, &hand)
        }).collect();
        let text = parts.join(&format!("---{newline}"));
        let config = config("");
        let known: Vec<Value> = documents.into_iter().map(|(value, _)| value).collect();
        let read: Vec<Value> = values(&text).unwrap().into_iter().map(Result::unwrap).collect();
        prop_assert_eq!(&read, &known, "{}", text);

        let outcome = inject(&text, settings(&config, native));
        let Some(result) = outcome.text else {
            prop_assert!(outcome.lines.iter().all(|line| !line.contains("cannot be changed")), "{:?}\n{}", outcome.lines, text);
            return Ok(());
        };
        // Its value is what the webhook's patches say.
        let manifest = Manifest::read(&text).unwrap();
        let mut expected = known;
        for workload in &manifest.workloads {
            let profile = |_: &str| Err(crate::decide::NoProfile::Missing);
            if let Decision::Inject(injection) = decide(&manifest.pod(workload), Context { config: &config, kubernetes: if native { 34 } else { 31 }, profile: &profile }) {
                let template = expected[workload.document].pointer_mut(workload.template.as_str()).unwrap();
                apply(template, &injection.patch).unwrap();
            }
        }
        let found: Vec<Value> = values(&result).unwrap().into_iter().map(Result::unwrap).collect();
        prop_assert_eq!(found, expected);
        prop_assert!(keeps(&text, &result), "{}\nbecomes\n{}", text, result);
        let twice = inject(&result, settings(&config, native));
        prop_assert_eq!(twice.text.as_ref(), Some(&result));
        let back = uninject(&result);
        prop_assert_eq!(back.text.as_ref(), Some(&text), "{:?} {}", back.lines, result);
    }
}
