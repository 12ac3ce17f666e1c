//! A request of version 2.0 as one of 1.0, for a receiver that turns out not to know the newer one. Samples stay; native
//! histograms, exemplars, metadata and starts have no place there.

use crate::delivery::protobuf::{Field, Malformed, fields, label, length_delimited, varints};

/// The same samples in version 1.0, and how many they are; both requests without compression.
///
/// # Errors
/// The request is none.
pub(crate) fn downgrade(request: &[u8]) -> Result<(Vec<u8>, u64), Malformed> {
    let mut symbols = Vec::new();
    for field in fields(request) {
        if let (4, Field::Bytes(text)) = field? {
            symbols.push(std::str::from_utf8(text).map_err(|_| Malformed)?);
        }
    }
    let (mut downgraded, mut series, mut samples) = (Vec::new(), Vec::new(), 0);
    for field in fields(request) {
        if let (5, Field::Bytes(bytes)) = field? {
            series.clear();
            let of_series = time_series(bytes, &symbols, &mut series)?;
            if of_series == 0 {
                continue;
            }
            samples += of_series;
            length_delimited(&mut downgraded, 1, series.len());
            downgraded.extend_from_slice(&series);
        }
    }
    Ok((downgraded, samples))
}

/// Gives how many samples it has.
fn time_series(bytes: &[u8], symbols: &[&str], series: &mut Vec<u8>) -> Result<u64, Malformed> {
    let mut samples = 0;
    let text = |place: u64| usize::try_from(place).ok().and_then(|place| symbols.get(place)).ok_or(Malformed);
    for field in fields(bytes) {
        match field? {
            (1, Field::Bytes(refs)) => {
                let places = varints(refs).collect::<Result<Vec<_>, _>>()?;
                for pair in places.chunks(2) {
                    let [name, value] = pair else { return Err(Malformed) };
                    label(series, text(*name)?, text(*value)?);
                }
            }
            (2, Field::Bytes(sample)) => {
                self::sample(sample, series)?;
                samples += 1;
            }
            _ => {}
        }
    }
    Ok(samples)
}

fn sample(bytes: &[u8], series: &mut Vec<u8>) -> Result<(), Malformed> {
    let (mut value, mut timestamp) = (0.0, 0);
    for field in fields(bytes) {
        match field? {
            (1, Field::Fixed64(bits)) => value = f64::from_bits(bits),
            (2, Field::Varint(time)) => timestamp = time.cast_signed(),
            _ => {}
        }
    }
    crate::delivery::protobuf::sample(series, value, timestamp, None);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::remote_write::Version;
    use crate::metrics::series::{Exemplar, Metadata};
    use crate::metrics::symbols::Symbols;
    use crate::metrics::write_request::{STALE, Sample, WriteRequest};

    #[test]
    fn what_is_left_is_what_the_older_version_would_have_said() {
        let symbols = Symbols::default();
        let mut table = symbols.lock();
        let series = [["__name__", "a", "x", "1"], ["__name__", "b", "y", "é"]];
        let series = series.map(|labels| labels.map(|text| table.hold(text)));
        let metadata = Metadata { help: table.hold("help"), ..Metadata::default() };
        let exemplar = Exemplar { labels: vec![("t".into(), "1".into())], value: 1.0, timestamp: None };
        let [newer, older] = [Version::V2, Version::V1].map(|version| {
            let mut request = WriteRequest::new(version);
            for (labels, value, timestamp) in
                [(&series[0], 1.5, -1), (&series[1], STALE, i64::MAX), (&series[0], 0.0, 0)]
            {
                let (start, exemplar) = (Some(-5), Some(&exemplar));
                let histogram = None;
                request
                    .add(&Sample { labels, metadata, value, timestamp, start, exemplar, histogram }, &table);
            }
            let of_histogram = Sample {
                labels: &series[1],
                metadata,
                value: 1.0,
                timestamp: 1,
                start: None,
                exemplar: None,
                histogram: Some(&[1 << 3, 1]),
            };
            assert_eq!(request.add(&of_histogram, &table), version == Version::V2);
            request.finish().to_vec()
        });
        assert_eq!(downgrade(&newer), Ok((older, 3)));
        assert_eq!(downgrade(&newer[..newer.len() - 1]), Err(Malformed));
        // A place that is none.
        assert_eq!(downgrade(&[4 << 3 | 2, 0, 5 << 3 | 2, 4, 1 << 3 | 2, 2, 0, 1]), Err(Malformed));
    }
}
