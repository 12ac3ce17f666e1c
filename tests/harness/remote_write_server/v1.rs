//! Requests of version 1.0: `prometheus.WriteRequest`.

use super::protobuf::fields;
use super::{STALE, Sample, Series, series_text};

pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Series>, String> {
    let mut all = Vec::new();
    for (field, series) in fields(bytes)? {
        if field != 1 {
            return Err(format!("field {field} of a write request"));
        }
        all.push(time_series(series.message()?)?);
    }
    Ok(all)
}

fn time_series(bytes: &[u8]) -> Result<Series, String> {
    let (mut labels, mut samples) = (Vec::new(), Vec::new());
    for (field, value) in fields(bytes)? {
        let parts = fields(value.message()?)?;
        match (field, parts.as_slice()) {
            (1, [(1, name), (2, value)]) => labels.push((name.text()?, value.text()?)),
            (2, [(1, value), (2, timestamp)]) => {
                let bits = value.number()?;
                samples.push(Sample {
                    timestamp: timestamp.number()?.cast_signed(),
                    value: (bits != STALE).then(|| f64::from_bits(bits)),
                    start: None,
                });
            }
            _ => return Err(format!("field {field} of a time series: {parts:?}")),
        }
    }
    Ok(Series { text: series_text(&labels)?, samples, ..Series::default() })
}
