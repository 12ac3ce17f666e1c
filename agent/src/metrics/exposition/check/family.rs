//! One metric family of an OpenMetrics page: which samples it may have, and in which order.

use std::collections::HashSet;

use super::Problem;
use super::points::Point;
use crate::metrics::exposition::{Kind, Sample, Series};

/// A metric family, as far as it is read.
pub(super) struct Family {
    pub(super) name: String,
    kind: Option<Kind>,
    has_help: bool,
    unit: Option<String>,
    has_samples: bool,
    /// Labels of the metrics that are over.
    past: HashSet<Labels>,
    metric: Option<Metric>,
}

/// Labels, sorted, without those that tell the samples of one metric apart.
type Labels = Vec<(String, String)>;

/// One metric of the family: one set of labels.
struct Metric {
    labels: Labels,
    timestamp: Option<i64>,
    point: Point,
}

// === impl Family ===

impl Family {
    pub(super) fn new(name: &str) -> Self {
        Family {
            name: name.to_owned(),
            kind: None,
            has_help: false,
            unit: None,
            has_samples: false,
            past: HashSet::new(),
            metric: None,
        }
    }

    pub(super) fn has_samples(&self) -> bool {
        self.has_samples
    }

    pub(super) fn help(&mut self) -> Result<(), Problem> {
        once(!std::mem::replace(&mut self.has_help, true), "HELP")
    }

    pub(super) fn kind(&mut self, kind: Kind) -> Result<(), Problem> {
        once(self.kind.replace(kind).is_none(), "TYPE")
    }

    pub(super) fn unit(&mut self, unit: &str) -> Result<(), Problem> {
        let is_suffix = self.name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_'));
        if !unit.is_empty() && !is_suffix {
            return Err(Problem::of(format!(
                "the name of {} does not end with its unit, _{unit}",
                self.name
            )));
        }
        once(self.unit.replace(unit.to_owned()).is_none(), "UNIT")
    }

    /// Suffixes that its samples may have.
    fn suffixes(&self) -> &'static [&'static str] {
        match self.kind.unwrap_or(Kind::Unknown) {
            Kind::Counter => &["_total", "_created"],
            Kind::Summary => &["", "_sum", "_count", "_created"],
            Kind::Histogram => &["_bucket", "_sum", "_count", "_created"],
            Kind::GaugeHistogram => &["_bucket", "_gsum", "_gcount"],
            Kind::Info => &["_info"],
            Kind::Gauge | Kind::StateSet | Kind::Unknown => &[""],
        }
    }

    fn suffix<'n>(&self, name: &'n str) -> Option<&'n str> {
        name.strip_prefix(self.name.as_str()).filter(|suffix| self.suffixes().contains(suffix))
    }

    pub(super) fn has_sample(&self, name: &str) -> bool {
        self.suffix(name).is_some()
    }

    /// Names that no other family may have.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        let suffixes = self.suffixes().iter().filter(|suffix| !suffix.is_empty());
        std::iter::once(&"").chain(suffixes).map(|suffix| format!("{}{suffix}", self.name))
    }

    /// The label that tells the samples of one metric apart.
    fn inner_label(&self, suffix: &str) -> Option<&str> {
        match (self.kind?, suffix) {
            (Kind::Histogram | Kind::GaugeHistogram, "_bucket") => Some("le"),
            (Kind::Summary, "") => Some("quantile"),
            (Kind::StateSet, "") => Some(&self.name),
            _ => None,
        }
    }

    pub(super) fn sample(
        &mut self,
        series: &Series<'_>,
        value: f64,
        sample: &Sample<'_>,
    ) -> Result<(), Problem> {
        self.has_samples = true;
        let kind = self.kind.unwrap_or(Kind::Unknown);
        let suffix = self.suffix(&series.name).unwrap_or_default().to_owned();
        let inner = self.inner_label(&suffix).map(str::to_owned);
        let inner_value = match &inner {
            Some(label) => {
                Some(series.label(label).ok_or(Problem::of(format!("the label {label} is missing")))?)
            }
            None => None,
        };
        let may_have_exemplar = matches!(
            (kind, suffix.as_str()),
            (Kind::Counter, "_total") | (Kind::Histogram | Kind::GaugeHistogram, "_bucket")
        );
        if sample.exemplar.is_some() && !may_have_exemplar {
            return Err(Problem::of(
                "only the total of a counter and the buckets of a histogram have exemplars",
            ));
        }
        let mut labels: Labels = series
            .labels
            .iter()
            .filter(|(name, _)| Some(name.as_ref()) != inner.as_deref())
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        labels.sort();
        let metric = self.metric(labels, sample.timestamp)?;
        metric.point.add(kind, &suffix, inner_value, value)
    }

    /// The metric with these labels, at this time. Its samples stand together, in the order of time.
    fn metric(&mut self, labels: Labels, timestamp: Option<i64>) -> Result<&mut Metric, Problem> {
        let goes_on = self.metric.as_ref().is_some_and(|metric| metric.labels == labels);
        if goes_on && let Some(metric) = &mut self.metric {
            match (metric.timestamp, timestamp) {
                (Some(before), Some(now)) if now < before && self.kind != Some(Kind::Info) => {
                    return Err(Problem::of("the samples of a metric stand in the order of time"));
                }
                (Some(_), None) | (None, Some(_)) => {
                    return Err(Problem::of("either all samples of a metric have times, or none"));
                }
                (before, now) if before != now => {
                    std::mem::take(&mut metric.point).finish(self.kind.unwrap_or(Kind::Unknown))?;
                    metric.timestamp = timestamp;
                }
                _ => {}
            }
        } else {
            self.finish_metric()?;
            if self.past.contains(&labels) {
                return Err(Problem::of("the samples of a metric do not stand together"));
            }
        }
        Ok(self.metric.get_or_insert_with(|| Metric { labels, timestamp, point: Point::default() }))
    }

    fn finish_metric(&mut self) -> Result<(), Problem> {
        let Some(metric) = self.metric.take() else { return Ok(()) };
        self.past.insert(metric.labels);
        metric.point.finish(self.kind.unwrap_or(Kind::Unknown))
    }

    pub(super) fn finish(mut self) -> Result<(), Problem> {
        let has_unit = self.unit.as_ref().is_some_and(|unit| !unit.is_empty());
        if has_unit && matches!(self.kind, Some(Kind::Info | Kind::StateSet)) {
            return Err(Problem::of(format!("{} cannot have a unit", self.name)));
        }
        self.finish_metric()
    }
}

fn once(is_first: bool, keyword: &str) -> Result<(), Problem> {
    if is_first { Ok(()) } else { Err(Problem::of(format!("{keyword} stands twice for this family"))) }
}
