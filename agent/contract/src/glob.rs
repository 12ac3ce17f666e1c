//! Lists of globs as users write them: `["*", "!kube-system"]`. `*` is any run of characters, `?` is one; nothing else is special.

use std::str::Chars;

/// Globs and exclusions (`!glob`). The last one that matches decides.
///
/// A list of exclusions only leaves them out of everything; an empty list matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GlobList {
    rules: Vec<Rule>,
    unmatched: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    glob: String,
    admits: bool,
}

// === impl GlobList ===

impl GlobList {
    /// Takes the rules in the order in which they were written.
    pub fn new(rules: &[String]) -> Self {
        let rules: Vec<Rule> = rules
            .iter()
            .map(|rule| match rule.strip_prefix('!') {
                Some(glob) => Rule { glob: glob.to_owned(), admits: false },
                None => Rule { glob: rule.clone(), admits: true },
            })
            .collect();
        let unmatched = !rules.is_empty() && rules.iter().all(|rule| !rule.admits);
        GlobList { rules, unmatched }
    }

    /// The rules as they were written.
    pub fn rules(&self) -> Vec<String> {
        self.rules
            .iter()
            .map(|rule| if rule.admits { rule.glob.clone() } else { format!("!{}", rule.glob) })
            .collect()
    }

    /// Whether the list admits `text`.
    pub fn matches(&self, text: &str) -> bool {
        self.rules
            .iter()
            .rev()
            .find(|rule| matches(&rule.glob, text))
            .map_or(self.unmatched, |rule| rule.admits)
    }
}

/// Whether the whole of `text` matches `glob`. Takes at most `glob` times `text` steps and no memory, whatever a user writes.
pub fn matches(glob: &str, text: &str) -> bool {
    let (mut glob, mut text) = (glob.chars(), text.chars());
    // Only the last `*` ever needs to take more: what earlier ones took is the shortest that works.
    let mut last_star: Option<(Chars<'_>, Chars<'_>)> = None;
    loop {
        let unread = text.clone();
        match (glob.next(), text.next()) {
            (Some('*'), _) => {
                last_star = Some((glob.clone(), unread.clone()));
                text = unread;
            }
            (Some('?'), Some(_)) => {}
            (Some(wanted), Some(found)) if wanted == found => {}
            (None, None) => return true,
            _ => {
                let Some((after_star, taken_to)) = &mut last_star else { return false };
                if taken_to.next().is_none() {
                    return false;
                }
                (glob, text) = (after_star.clone(), taken_to.clone());
            }
        }
    }
}

/// What a glob of files may be, for messages.
pub const FILE_GLOB: &str =
    "an absolute path below a directory, with * and ? in its last part only, such as /var/log/app/*.log";

/// The directory of a glob of files, and the glob of their names; none where it is not [`FILE_GLOB`]. Only the last part may
/// have wildcards: what stands before it is a directory that can be mounted and watched.
pub fn file_glob(text: &str) -> Option<(&str, &str)> {
    let (directory, name) = text.rsplit_once('/')?;
    let parts = directory.strip_prefix('/')?;
    let is_plain = |part: &str| !["", ".", ".."].contains(&part) && !part.contains(['*', '?']);
    let is_good = !["", ".", ".."].contains(&name) && parts.split('/').all(is_plain) && !text.contains('\0');
    is_good.then_some((directory, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(rules: &[&str]) -> GlobList {
        GlobList::new(&rules.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn a_glob_matches_the_whole_text() {
        for (glob, text) in [
            ("", ""),
            ("*", ""),
            ("*", "anything"),
            ("team-*", "team-"),
            ("team-*", "team-a"),
            ("*-prod", "shop-prod"),
            ("a*b*c", "a-b-b-c"),
            ("a**b", "ab"),
            ("t?am", "team"),
            ("?", "é"),
            ("*é?", "aéb"),
        ] {
            assert!(matches(glob, text), "{glob:?} should match {text:?}");
        }
        for (glob, text) in [
            ("", "a"),
            ("?", ""),
            ("team", "teams"),
            ("teams", "team"),
            ("team-*", "team"),
            ("a*b*c", "a-c-b"),
            ("*-prod", "shop-prod-2"),
            ("a.c", "abc"),
            ("[a]", "a"),
        ] {
            assert!(!matches(glob, text), "{glob:?} should not match {text:?}");
        }
    }

    #[test]
    fn many_stars_do_not_explode() {
        assert!(!matches(&"*a".repeat(200), &"a".repeat(199)));
        assert!(!matches(&format!("{}b", "a*".repeat(200)), &"a".repeat(5_000)));
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        let all_but_one = list(&["*", "!kube-system"]);
        assert!(all_but_one.matches("shop"));
        assert!(!all_but_one.matches("kube-system"));

        let taken_back = list(&["*", "!kube-*", "kube-public"]);
        assert!(!taken_back.matches("kube-system"));
        assert!(taken_back.matches("kube-public"));
    }

    #[test]
    fn only_exclusions_leave_them_out_of_everything() {
        let list = list(&["!kube-system"]);
        assert!(list.matches("shop"));
        assert!(!list.matches("kube-system"));
    }

    #[test]
    fn an_empty_list_matches_nothing() {
        assert!(!list(&[]).matches("shop"));
        assert!(!list(&[]).matches(""));
    }
}
