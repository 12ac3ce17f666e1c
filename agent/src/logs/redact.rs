//! Takes secrets out of records before they leave the node.

use regex::bytes::{Regex, RegexBuilder};

/// What stands in a secret's place.
const REPLACEMENT: &[u8] = b"[REDACTED]";
/// Compiled size of one pattern, at most: a tenant's pattern must not cost the node its memory.
const SIZE_LIMIT: usize = 1 << 20;

/// Names that stand for patterns.
pub const BUILTIN: [(&str, &str); 7] = [
    ("email", r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*\.[A-Za-z]{2,24}"),
    ("ipv4", r"\b(?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\b"),
    ("credit_card", r"\b[0-9](?:[ -]?[0-9]){12,18}\b"),
    ("jwt", r"\beyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]+"),
    ("bearer", r"(?i:\bbearer\s+)([A-Za-z0-9._~+/-]{8,}=*)"),
    ("aws_key", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    ("password", r#"(?i:\b(?:password|passwd|pwd|secret|token)["']?\s*[=:]\s*["']?)([^\s"',;&]{1,256})"#),
];

/// Compiled patterns.
#[derive(Debug)]
pub struct Redactor {
    patterns: Vec<Regex>,
}

// === impl Redactor ===

impl Redactor {
    /// Compiles names of built-in patterns and regexes.
    ///
    /// # Errors
    /// The pattern that is wrong, and why.
    pub fn compile(patterns: &[String]) -> Result<Self, String> {
        let compile = |pattern: &String| {
            let builtin = BUILTIN.iter().find(|(name, _)| name == pattern).map(|(_, regex)| *regex);
            RegexBuilder::new(builtin.unwrap_or(pattern))
                .unicode(false)
                .size_limit(SIZE_LIMIT)
                .dfa_size_limit(SIZE_LIMIT)
                .build()
                .map_err(|error| {
                    format!("{pattern:?} is neither the name of a pattern nor a valid regex: {error}")
                })
        };
        Ok(Redactor { patterns: patterns.iter().map(compile).collect::<Result<_, _>>()? })
    }

    /// The text without what matches, or what the first group of a pattern matches: so the key of a password stays, and
    /// JSON stays JSON. As it is, uncopied, when nothing does.
    pub fn apply<'a>(&self, text: &'a [u8], room: &'a mut Vec<u8>) -> &'a [u8] {
        let mut changed = false;
        for pattern in &self.patterns {
            let source = if changed { room.as_slice() } else { text };
            if !pattern.is_match(source) {
                continue;
            }
            let mut out = Vec::with_capacity(source.len());
            let mut end = 0;
            for found in pattern.captures_iter(source) {
                let secret = found.get(1).or_else(|| found.get(0)).filter(|secret| !secret.is_empty());
                let Some(secret) = secret else { continue };
                out.extend_from_slice(&source[end..secret.start()]);
                out.extend_from_slice(REPLACEMENT);
                end = secret.end();
            }
            out.extend_from_slice(&source[end..]);
            *room = out;
            changed = true;
        }
        if changed { room } else { text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_pattern_takes_its_secret_out_and_leaves_the_rest() {
        let secrets = [
            ("email", "to a.b@example.org now", "to [REDACTED] now"),
            ("ipv4", "from 10.0.0.255:80", "from [REDACTED]:80"),
            ("credit_card", "card 4111 1111 1111 1111 ok", "card [REDACTED] ok"),
            ("jwt", "t=eyJhbGciOi.eyJzdWIi.abc_-1 x", "t=[REDACTED] x"),
            ("bearer", "Authorization: Bearer abcdefgh12", "Authorization: Bearer [REDACTED]"),
            ("aws_key", "key AKIAABCDEFGHIJKLMNOP.", "key [REDACTED]."),
            ("password", "user=x password=hunter2 y", "user=x password=[REDACTED] y"),
        ];
        for (name, text, expected) in secrets {
            let redactor = Redactor::compile(&[name.to_owned()]).unwrap();
            let mut room = Vec::new();
            assert_eq!(String::from_utf8_lossy(redactor.apply(text.as_bytes(), &mut room)), expected);
            assert_eq!(redactor.apply(b"nothing here", &mut Vec::new()), b"nothing here");
        }
    }

    #[test]
    fn patterns_work_together_and_a_wrong_one_is_named() {
        let both = Redactor::compile(&["email".to_owned(), "s[0-9]+".to_owned()]).unwrap();
        assert_eq!(both.apply(b"a@b.org s1 s22", &mut Vec::new()), b"[REDACTED] [REDACTED] [REDACTED]");
        assert!(Redactor::compile(&["(".to_owned()]).unwrap_err().contains("\"(\""));
    }

    #[test]
    fn a_pattern_that_matches_nothing_at_all_takes_nothing_out() {
        let redactor = Redactor::compile(&["s*".to_owned()]).unwrap();
        assert_eq!(redactor.apply(b"a ss b", &mut Vec::new()), b"a [REDACTED] b");
    }
}
