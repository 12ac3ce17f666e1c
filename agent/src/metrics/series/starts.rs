//! When the counters of a page began: what OpenMetrics's `_created` says of the samples before it.

use std::collections::HashMap;

use super::{Point, Slot};
use crate::metrics::symbols::SymbolTable;

/// Milliseconds since the epoch, by slot.
#[derive(Debug, Default)]
pub(super) struct Starts {
    /// Of the page that is being read.
    starts: HashMap<u32, i64>,
    /// For each slot that dates others: those of the same metric, as they stood before it.
    dated: HashMap<u32, Box<[u32]>>,
}

// === impl Starts ===

impl Starts {
    /// Nothing is said yet.
    pub(super) fn begin_page(&mut self) {
        self.starts.clear();
    }

    /// Slots may stand for other series from now on.
    pub(super) fn forget(&mut self) {
        self.dated.clear();
    }

    /// When a series began.
    pub(super) fn of(&self, slot: u32) -> Option<i64> {
        if self.starts.is_empty() { None } else { self.starts.get(&slot).copied() }
    }

    /// A sample whose value is the time, in seconds, at which those of its metric began that stand before it: OpenMetrics
    /// wants the samples of a metric together.
    pub(super) fn date(
        &mut self,
        slots: &[Slot],
        before: &[Point],
        created: Point,
        has_new: bool,
        table: &SymbolTable,
    ) {
        let milliseconds = created.value * 1000.0;
        if !milliseconds.is_finite() || milliseconds <= 0.0 {
            return;
        }
        if has_new {
            self.dated.remove(&created.slot);
        }
        let dated = self.dated.entry(created.slot).or_insert_with(|| {
            let created = &slots[created.slot as usize];
            let is_of_metric = |point: &&Point| is_of_metric(&slots[point.slot as usize], created, table);
            before.iter().rev().take_while(is_of_metric).map(|point| point.slot).collect()
        });
        self.starts.extend(dated.iter().map(|slot| (*slot, milliseconds.round() as i64)));
    }
}

/// Suffixes of the samples that another one dates.
const DATED: [&str; 7] = ["", "_total", "_bucket", "_count", "_sum", "_gcount", "_gsum"];

fn is_of_metric(slot: &Slot, created: &Slot, table: &SymbolTable) -> bool {
    let (Some(labels), Some(of_metric)) = (&slot.labels, &created.labels) else { return false };
    let suffix = || {
        let family = table.text(of_metric.name()?).strip_suffix("_created")?;
        table.text(labels.name()?).strip_prefix(family)
    };
    suffix().is_some_and(|suffix| DATED.contains(&suffix)) && labels.is_of_metric(of_metric)
}
