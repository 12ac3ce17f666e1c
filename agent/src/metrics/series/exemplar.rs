//! What a sample was an example for: a trace, mostly.

use crate::metrics::exposition::{self, Dialect, Series};

/// As it is written: more has more characters than are allowed, whatever they are.
const MAX_BYTES: usize = 8 * exposition::EXEMPLAR_CHARACTERS;

/// An exemplar.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// Names and values.
    pub labels: Vec<(String, String)>,
    /// Its value.
    pub value: f64,
    /// Milliseconds since the epoch.
    pub timestamp: Option<i64>,
}

// === impl Exemplar ===

impl Exemplar {
    /// None where its labels are not in order, or longer than anybody takes.
    pub(super) fn read(exemplar: &exposition::Exemplar<'_>, dialect: Dialect) -> Option<Self> {
        if exemplar.labels.len() > MAX_BYTES {
            return None;
        }
        let labels = Series::read_labels(exemplar.labels, dialect).ok()?;
        let characters = |(name, value): &exposition::Label<'_>| name.chars().count() + value.chars().count();
        if labels.iter().map(characters).sum::<usize>() > exposition::EXEMPLAR_CHARACTERS {
            return None;
        }
        let owned = |(name, value): exposition::Label<'_>| (name.into_owned(), value.into_owned());
        Some(Exemplar {
            labels: labels.into_iter().map(owned).collect(),
            value: exemplar.value,
            timestamp: exemplar.timestamp,
        })
    }
}
