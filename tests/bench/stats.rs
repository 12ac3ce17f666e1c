//! Medians, and how sure a ratio is.

/// Two-sided 95 % quantiles of Student's t for 1 to 20 degrees of freedom.
const T: [f64; 20] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086,
];

/// A 95 % interval.
#[derive(Clone, Copy)]
pub(crate) struct Interval {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// The middle value, the upper of two.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The value below which a share of the sorted values lies.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    Some(sorted[(last as f64 * share).round() as usize])
}

/// The interval of the mean ratio, from one ratio for each round. A ratio is compared by its logarithm, so that 0.5 is as
/// far from 1 as 2 is.
pub(crate) fn interval(ratios: &[f64]) -> Option<Interval> {
    let n = ratios.len() as f64;
    let t = T.get(ratios.len().checked_sub(2)?).copied().unwrap_or(2.0);
    let logarithms = || ratios.iter().map(|ratio| ratio.ln());
    let mean = logarithms().sum::<f64>() / n;
    let variance = logarithms().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let margin = t * (variance / n).sqrt();
    Some(Interval { low: (mean - margin).exp(), high: (mean + margin).exp() })
}
