//! Variables of the environment in the texts of a config.

use yaml_serde::Value;

use super::mistakes::Mistakes;
use super::section::scalar;

/// Looks a variable up for `${VAR}` and `${VAR:-default}`.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Replaces `${VAR}` and `${VAR:-default}` in every text of the tree. A variable that is neither set nor has a
/// default is a mistake.
pub fn expand(value: &mut Value, path: &str, environment: Environment<'_>, mistakes: &mut Mistakes) {
    match value {
        Value::String(text) if text.contains("${") => match expand_text(text, environment) {
            Ok(expanded) => *text = expanded,
            Err(message) => mistakes.add(path, message),
        },
        Value::Sequence(items) => {
            for (n, item) in items.iter_mut().enumerate() {
                expand(item, &format!("{path}[{n}]"), environment, mistakes);
            }
        }
        Value::Mapping(entries) => {
            for (key, item) in entries.iter_mut() {
                let key = scalar(key).unwrap_or_default();
                let path = if path.is_empty() { key } else { format!("{path}.{key}") };
                expand(item, &path, environment, mistakes);
            }
        }
        _ => {}
    }
}

fn expand_text(text: &str, environment: Environment<'_>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, reference)) = rest.split_once("${") {
        let (reference, after) =
            reference.split_once('}').ok_or_else(|| "a ${ without its closing brace".to_owned())?;
        expanded.push_str(before);
        rest = after;
        // No variable has such a name; a group of a regex has.
        if reference.bytes().all(|byte| byte.is_ascii_digit()) {
            expanded.extend(["${", reference, "}"]);
            continue;
        }
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        let set = environment(name).filter(|value| !value.is_empty() || default.is_none());
        let value = set.or_else(|| default.map(str::to_owned));
        expanded.push_str(&value.ok_or_else(|| {
            format!("the environment variable {name} is not set; set it or write ${{{name}:-default}}")
        })?);
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_and_a_missing_one_is_a_mistake_with_its_path() {
        let environment = |name: &str| (name == "SET").then(|| "x".to_owned());
        let mut value: Value =
            yaml_serde::from_str("a: 'pre-${SET}-${NOT:-def}-${EMPTY:-}'\nb: ['${NOT}']").unwrap();
        let mut mistakes = Mistakes::default();
        expand(&mut value, "", &environment, &mut mistakes);
        assert_eq!(value["a"], Value::from("pre-x-def-"));
        let lines = mistakes.into_lines();
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("b[0]: the environment variable NOT is not set"), "{lines:?}");
    }
}
