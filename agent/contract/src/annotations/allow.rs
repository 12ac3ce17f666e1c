//! Which annotations the operator lets pods use.

use super::{KEYS, Name, Scope};
use crate::glob::{GlobList, matches};
use crate::nearest::nearest;

/// What pods may use unless the operator says otherwise.
pub const DEFAULT_ALLOW: [&str; 4] = ["*", "!logs.tag", "!metrics.honor-labels", "!inject.image"];

/// The operator's `annotations.allow`: globs over the known keys, each without prefix and suffix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow(GlobList);

// === impl Allow ===

impl Allow {
    /// Takes the rules in the order in which they were written; the last one that matches a key decides.
    ///
    /// # Errors
    /// A text for the operator, when a rule matches no known key: an exclusion with a slip in it would allow what it was to forbid.
    pub fn new(rules: &[String]) -> Result<Self, String> {
        for rule in rules {
            let glob = rule.strip_prefix('!').unwrap_or(rule);
            if !KEYS.iter().any(|key| matches(glob, key.name)) {
                let nearest = nearest(glob, KEYS.iter().map(|key| key.name)).unwrap_or_default();
                return Err(format!("{rule:?} matches no annotation; the nearest one is {nearest:?}"));
            }
        }
        Ok(Allow(GlobList::new(rules)))
    }

    /// All of them.
    pub fn everything() -> Self {
        Allow(GlobList::new(&["*".to_owned()]))
    }

    /// The rules as they were written.
    pub fn rules(&self) -> Vec<String> {
        self.0.rules()
    }

    /// Whether pods may use `key`, given without prefix; a suffix makes no difference. Unknown keys are not permitted, what the injector
    /// writes always is.
    pub fn permits(&self, key: &str) -> bool {
        Name::parse(key).is_some_and(|name| name.key.scope == Scope::Written || self.0.matches(name.key.name))
    }
}

impl Default for Allow {
    fn default() -> Self {
        Allow(GlobList::new(&DEFAULT_ALLOW.map(str::to_owned)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(rules: &[&str]) -> Result<Allow, String> {
        Allow::new(&rules.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn the_default_is_the_contract() {
        let default = Allow::default();
        assert_eq!(allow(&DEFAULT_ALLOW), Ok(default.clone()));
        for key in KEYS {
            let forbidden = ["logs.tag", "metrics.honor-labels", "inject.image"].contains(&key.name);
            assert_eq!(default.permits(key.name), !forbidden, "{}", key.name);
        }
    }

    #[test]
    fn a_suffix_is_no_way_around_an_exclusion() {
        assert!(!Allow::default().permits("logs.tag.web"));
        assert!(Allow::default().permits("logs.rate.web"));
    }

    #[test]
    fn nothing_is_permitted_by_an_empty_list_but_what_the_injector_writes() {
        let none = allow(&[]).unwrap();
        for key in KEYS {
            assert_eq!(none.permits(key.name), key.name.starts_with("injected"), "{}", key.name);
        }
    }

    #[test]
    fn a_later_rule_wins() {
        let redact_only = allow(&["!logs*", "logs.redact"]).unwrap();
        assert!(redact_only.permits("logs.redact"));
        assert!(!redact_only.permits("logs.rate"));
        assert!(!redact_only.permits("metrics"), "a list with an inclusion admits nothing else");
    }

    #[test]
    fn a_rule_that_matches_nothing_is_an_error_with_the_nearest_name() {
        let error = allow(&["*", "!logs.tags"]).unwrap_err();
        assert_eq!(error, r#""!logs.tags" matches no annotation; the nearest one is "logs.tag""#);
        assert!(allow(&["!"]).is_err());
    }

    #[test]
    fn an_unknown_key_is_not_permitted() {
        assert!(!Allow::default().permits("logs.a.b"));
    }
}
