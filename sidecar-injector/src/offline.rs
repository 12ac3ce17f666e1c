//! `inject` and `uninject`: the webhook's decision on manifests. Pure: text in, text and diagnostics out.

use json_patch::{Patch, PatchOperation};
use jsonptr::{Pointer, PointerBuf};
use serde_json::Value;
use sidelight_contract::annotations::PREFIX;

use crate::config::Config;
use crate::decide::{Context, Decision, Injection, NoProfile, Skip, decide};
use crate::manifest::{Manifest, Workload, right_place};
use crate::profile::profile_mistake;
use crate::uninject::removals;
use crate::yaml::{self, Layout};

/// What is known beside the manifests.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// The injector's configuration.
    pub config: &'a Config,
    /// The minor version of the API server.
    pub kubernetes: u32,
    /// The namespace of what says none.
    pub namespace: &'a str,
}

/// What has become of a stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The stream; none where the answer is no.
    pub text: Option<String>,
    /// Diagnostics, one a line.
    pub lines: Vec<String>,
}

/// Adds sidecars to the pods that ask for one.
pub fn inject(text: &str, settings: Settings<'_>) -> Outcome {
    change(text, |manifest, _, workload| decided(manifest, workload, settings))
}

/// Removes sidecars.
pub fn uninject(text: &str) -> Outcome {
    change(text, |manifest, layout, workload| match removals(manifest.template(workload), layout) {
        Some(patch) => Ok((Some(patch), vec!["the sidecar is removed".to_owned()])),
        None => Ok((None, vec!["left as it is: it has no sidecar".to_owned()])),
    })
}

/// What is to be changed, with diagnostics; or why the answer is no.
type Change = Result<(Option<Patch>, Vec<String>), String>;

fn change(text: &str, decide: impl Fn(&Manifest, &Layout<'_>, &Workload) -> Change) -> Outcome {
    let refused = |mut lines: Vec<String>, error: String| {
        lines.push(error);
        Outcome { text: None, lines }
    };
    let (manifest, roots) = match Manifest::read(text).and_then(|manifest| Ok((manifest, yaml::parse(text)?)))
    {
        // Nothing but comments is a document for one of them.
        Ok((manifest, roots)) if manifest.documents.len() == roots.len() || roots.is_empty() => {
            (manifest, roots)
        }
        Ok(_) => return refused(Vec::new(), "two readers of YAML see different documents in it".to_owned()),
        Err(error) => return refused(Vec::new(), format!("not YAML that can be used: {error}")),
    };
    let (mut lines, mut patches, mut is_refused) = (Vec::new(), Vec::new(), false);
    for workload in &manifest.workloads {
        lines.extend(misplaced(workload));
        let layout = Layout::new(text, &roots[workload.document], &workload.template);
        match decide(&manifest, &layout, workload) {
            Ok((patch, told)) => {
                lines.extend(told.into_iter().map(|line| format!("{workload}: {line}")));
                patches.extend(patch.map(|patch| (workload.document, below(&workload.template, patch))));
            }
            Err(error) => {
                is_refused = true;
                lines.push(format!("{workload}: refused: {error}"));
            }
        }
    }
    if is_refused {
        return Outcome { text: None, lines };
    }
    if patches.is_empty() {
        return Outcome { text: Some(text.to_owned()), lines };
    }
    match yaml::edit(text, &patches) {
        Ok(edited) => {
            lines.extend(edited.notes);
            Outcome { text: Some(edited.text), lines }
        }
        Err(error) => refused(lines, format!("cannot be changed in its place: {error}")),
    }
}

fn misplaced(workload: &Workload) -> Option<String> {
    let keys = workload.misplaced.join(", ");
    (!keys.is_empty()).then(|| {
        format!(
            "{workload}: warning: {keys} on the {} itself has no effect; it belongs in {}.annotations",
            workload.kind,
            right_place(&workload.kind)
        )
    })
}

fn decided(manifest: &Manifest, workload: &Workload, settings: Settings<'_>) -> Change {
    let pod = manifest.pod(workload);
    let annotations = pod.pointer("/metadata/annotations").and_then(Value::as_object);
    let Some(annotations) = annotations.filter(|all| all.contains_key(&format!("{PREFIX}inject"))) else {
        return Ok((None, vec![skipped(Skip::NotAsked)]));
    };
    if let Some((key, value)) = annotations.iter().find(|(_, value)| !value.is_string()) {
        let text = Value::from(value.to_string());
        return Err(format!("the annotation {key} is no text: {value}; write it in quotes: {text}"));
    }
    let profile = |name: &str| {
        let found = manifest.profile(workload, name, settings.namespace)?;
        match profile_mistake(&found, settings.config) {
            None => Ok(found),
            Some(mistake) => Err(NoProfile::Invalid(mistake)),
        }
    };
    let context = Context { config: settings.config, kubernetes: settings.kubernetes, profile: &profile };
    let warn = |warnings: Vec<String>| warnings.into_iter().map(|warning| format!("warning: {warning}"));
    match decide(&pod, context) {
        Decision::Skip(skip, warnings) => {
            Ok((None, std::iter::once(skipped(skip)).chain(warn(warnings)).collect()))
        }
        Decision::Inject(Injection { patch, warnings, purpose, native, .. }) => {
            let how = if native { "a native sidecar" } else { "a plain container" };
            let told = format!("{how} is added for {}", purpose.names());
            Ok((Some(framed(patch)), std::iter::once(told).chain(warn(warnings)).collect()))
        }
        Decision::Deny(error) | Decision::Fail(error) => Err(error),
    }
}

fn skipped(skip: Skip) -> String {
    format!("left as it is: {}", skip.name().replace('_', " "))
}

/// The same with `injected` and `injected-for` around the other annotations, for [`removals`] to know them again.
fn framed(mut patch: Patch) -> Patch {
    let rank = |operation: &PatchOperation| {
        let name = operation.path().back().map(|name| name.decoded().into_owned()).unwrap_or_default();
        match name.strip_prefix(PREFIX) {
            Some("injected") => 0,
            Some("injected-for") => 2,
            _ => 1,
        }
    };
    patch.0.sort_by_key(rank);
    patch
}

/// The same patch, for the object that has what it is about below `pointer`.
fn below(pointer: &Pointer, mut patch: Patch) -> Patch {
    let under = |path: &PointerBuf| pointer.concat(path);
    for operation in &mut patch.0 {
        match operation {
            PatchOperation::Add(add) => add.path = under(&add.path),
            PatchOperation::Remove(remove) => remove.path = under(&remove.path),
            PatchOperation::Replace(replace) => replace.path = under(&replace.path),
            _ => {}
        }
    }
    patch
}

#[cfg(test)]
mod generated;
#[cfg(test)]
mod tests;
