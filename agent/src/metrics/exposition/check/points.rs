//! One point of a metric: its samples of one time, and what their values may be.

use super::Problem;
use crate::metrics::exposition::{Kind, number};

/// The samples of one metric at one time, as far as they are read.
#[derive(Default)]
pub(super) struct Point {
    /// Upper bounds and counts.
    buckets: Vec<(f64, f64)>,
    sum: Option<f64>,
    count: Option<f64>,
}

// === impl Point ===

impl Point {
    /// `inner` is the label that tells the samples of the point apart.
    pub(super) fn add(
        &mut self,
        kind: Kind,
        suffix: &str,
        inner: Option<&str>,
        value: f64,
    ) -> Result<(), Problem> {
        match (kind, suffix) {
            (Kind::Counter, "_total") => counts(value),
            (Kind::Histogram | Kind::GaugeHistogram, "_bucket") => {
                counts(value)?;
                self.bucket(inner.unwrap_or_default(), value)
            }
            (Kind::Histogram | Kind::Summary, "_count") | (Kind::GaugeHistogram, "_gcount") => {
                self.count = Some(value);
                counts(value)
            }
            (Kind::Histogram | Kind::Summary, "_sum") => {
                self.sum = Some(value);
                counts(value)
            }
            (Kind::GaugeHistogram, "_gsum") => {
                self.sum = Some(value);
                if value.is_nan() { Err(Problem::of("a sum cannot be NaN")) } else { Ok(()) }
            }
            (Kind::Summary, "") => quantile(inner.unwrap_or_default(), value),
            (Kind::Info, _) if value != 1.0 => Err(Problem::of("the value of an info is 1")),
            (Kind::StateSet, _) if value != 0.0 && value != 1.0 => {
                Err(Problem::of("the value of a state is 0 or 1"))
            }
            _ => Ok(()),
        }
    }

    fn bucket(&mut self, le: &str, count: f64) -> Result<(), Problem> {
        let is_spelled = !le.contains(['n', 'N']) || le == "+Inf";
        let bound = number::float(le.as_bytes()).filter(|_| is_spelled);
        let bound = bound.ok_or_else(|| Problem::of(format!("le is a number or +Inf, not {le:?}")))?;
        match self.buckets.last() {
            Some((before, _)) if *before > bound => Err(Problem::of("the buckets stand in the order of le")),
            Some((before, counted)) if *before < bound && *counted > count => {
                Err(Problem::of("a bucket counts all that the ones before it count"))
            }
            _ => {
                self.buckets.push((bound, count));
                Ok(())
            }
        }
    }

    /// No sample follows.
    pub(super) fn finish(self, kind: Kind) -> Result<(), Problem> {
        if !matches!(kind, Kind::Histogram | Kind::GaugeHistogram) {
            return Ok(());
        }
        let Point { buckets, sum, count } = self;
        let is_empty = buckets.is_empty() && sum.is_none() && count.is_none();
        if is_empty {
            return Ok(());
        }
        let Some((_, all)) = buckets.last().filter(|(bound, _)| *bound == f64::INFINITY) else {
            return Err(Problem::of("the last bucket of a histogram is that of le=\"+Inf\""));
        };
        let has_negative = buckets.iter().any(|(bound, _)| *bound < 0.0);
        if sum.is_some() != count.is_some() {
            return Err(Problem::of("a histogram has both a sum and a count, or neither"));
        }
        if count.is_some_and(|count| count != *all) {
            return Err(Problem::of("the count of a histogram is that of its bucket +Inf"));
        }
        match (kind, sum) {
            (Kind::Histogram, Some(_)) if has_negative => {
                Err(Problem::of("a histogram with negative buckets has no sum: it would not only grow"))
            }
            (Kind::GaugeHistogram, Some(sum)) if sum < 0.0 && !has_negative => {
                Err(Problem::of("without negative buckets the sum cannot be negative"))
            }
            _ => Ok(()),
        }
    }
}

fn counts(value: f64) -> Result<(), Problem> {
    if value >= 0.0 { Ok(()) } else { Err(Problem::of("what counts is neither negative nor NaN")) }
}

fn quantile(label: &str, value: f64) -> Result<(), Problem> {
    let is_share = number::float(label.as_bytes()).is_some_and(|quantile| (0.0..=1.0).contains(&quantile));
    if !is_share {
        return Err(Problem::of(format!("quantile is a number from 0 to 1, not {label:?}")));
    }
    if value < 0.0 { Err(Problem::of("a quantile is not negative")) } else { Ok(()) }
}
