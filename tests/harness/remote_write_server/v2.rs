//! Requests of version 2.0: `io.prometheus.write.v2.Request`.

use std::collections::BTreeSet;

use super::protobuf::{Field, fields, packed};
use super::{Exemplar, Histogram, Metadata, STALE, Sample, Series, series_text};

pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Series>, String> {
    let (mut symbols, mut all) = (Vec::new(), Vec::new());
    let fields = fields(bytes)?;
    for (field, text) in &fields {
        match field {
            4 => symbols.push(text.text()?),
            5 => {}
            other => return Err(format!("field {other} of a request")),
        }
    }
    if symbols.first().is_none_or(|first| !first.is_empty()) {
        return Err("the first symbol is not the empty text".to_owned());
    }
    if symbols.iter().collect::<BTreeSet<_>>().len() < symbols.len() {
        return Err(format!("a symbol stands there twice: {symbols:?}"));
    }
    for (_, series) in fields.iter().filter(|(field, _)| *field == 5) {
        all.push(time_series(series.message()?, &symbols)?);
    }
    Ok(all)
}

fn time_series(bytes: &[u8], symbols: &[String]) -> Result<Series, String> {
    let mut series = Series::default();
    for (field, value) in fields(bytes)? {
        let message = value.message()?;
        match field {
            1 => series.text = series_text(&labels(message, symbols)?)?,
            2 => series.samples.push(sample(message)?),
            3 => series.histograms.push(histogram(message)?),
            4 => series.exemplars.push(exemplar(message, symbols)?),
            5 => series.metadata = metadata(message, symbols)?,
            other => return Err(format!("field {other} of a time series")),
        }
    }
    if series.text.is_empty() || series.samples.len() + series.histograms.len() != 1 {
        return Err(
            "a time series without labels, or with more or less than one sample or histogram".to_owned()
        );
    }
    Ok(series)
}

fn labels(refs: &[u8], symbols: &[String]) -> Result<Vec<(String, String)>, String> {
    let texts: Vec<String> =
        packed(refs)?.into_iter().map(|place| symbol(place, symbols)).collect::<Result<_, _>>()?;
    if texts.len() % 2 == 1 {
        return Err("a label without a value".to_owned());
    }
    Ok(texts.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
}

fn symbol(place: u64, symbols: &[String]) -> Result<String, String> {
    symbols.get(place as usize).cloned().ok_or_else(|| format!("there is no symbol {place}"))
}

fn sample(bytes: &[u8]) -> Result<Sample, String> {
    let (timestamp, bits, start) = match fields(bytes)?.as_slice() {
        [(1, value), (2, time)] => (time.number()?, value.number()?, None),
        [(1, value), (2, time), (3, start)] => (time.number()?, value.number()?, Some(start.number()?)),
        other => return Err(format!("a sample with {other:?}")),
    };
    let sample = Sample {
        timestamp: timestamp.cast_signed(),
        value: (bits != STALE).then(|| f64::from_bits(bits)),
        start: start.map(u64::cast_signed),
    };
    if sample.start.is_some_and(|start| start > sample.timestamp) {
        return Err(format!("it began after it was: {sample:?}"));
    }
    Ok(sample)
}

fn histogram(bytes: &[u8]) -> Result<Histogram, String> {
    let mut read = Histogram { timestamp: 0, count: 0, sum: 0.0, positive_deltas: Vec::new() };
    for (field, value) in fields(bytes)? {
        match field {
            1 => read.count = value.number()?,
            3 => read.sum = f64::from_bits(value.number()?),
            4..=6 | 8 | 9 | 11 => {}
            12 => read.positive_deltas = packed(value.message()?)?.into_iter().map(zigzag).collect(),
            15 => read.timestamp = value.number()?.cast_signed(),
            other => return Err(format!("field {other} of a histogram")),
        }
    }
    if read.timestamp == 0 {
        return Err("a histogram without a time".to_owned());
    }
    Ok(read)
}

/// A signed number of variable length.
fn zigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

fn exemplar(bytes: &[u8], symbols: &[String]) -> Result<Exemplar, String> {
    match fields(bytes)?.as_slice() {
        [(1, refs), (2, value), (3, timestamp)] => Ok(Exemplar {
            labels: labels(refs.message()?, symbols)?,
            value: f64::from_bits(value.number()?),
            timestamp: timestamp.number()?.cast_signed(),
        }),
        other => Err(format!("an exemplar with {other:?}")),
    }
}

fn metadata(bytes: &[u8], symbols: &[String]) -> Result<Metadata, String> {
    let mut metadata = Metadata::default();
    for (field, value) in fields(bytes)? {
        let Field::Number(number) = value else { return Err(format!("metadata with {value:?}")) };
        match field {
            1 => metadata.kind = number,
            3 => metadata.help = symbol(number, symbols)?,
            4 => metadata.unit = symbol(number, symbols)?,
            other => return Err(format!("field {other} of metadata")),
        }
    }
    Ok(metadata)
}
