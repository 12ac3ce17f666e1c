//! Pages of metrics in protobuf: any bytes.

use sidelight_agent::metrics::exposition::protobuf::written;
use sidelight_agent::metrics::exposition::{Dialect, Line, Series};

/// So long that a page of a few kilobytes only meets it where it makes more of itself.
const LIMIT: usize = 64 << 10;

/// A page of any bytes ends in no panic, and as text in no more than it may have. What is written out is read as OpenMetrics, and
/// every native histogram stands beside a sample of it, in their order.
pub fn protobuf(data: &[u8]) {
    let Ok(page) = written(data, LIMIT) else { return };
    assert!(page.text.len() <= LIMIT);
    let mut samples = 0;
    for line in page.text.split(|byte| *byte == b'\n') {
        let text = String::from_utf8_lossy(line);
        match Line::read(line, Dialect::OpenMetrics) {
            Ok(Line::Sample(sample)) => {
                samples += 1;
                match Series::read(sample.series, Dialect::OpenMetrics) {
                    // The page says so; the scrape fails with that.
                    Err(fault) if fault.what == "a label stands twice" => return,
                    series => assert!(series.is_ok() && sample.value().is_some(), "{text}: {series:?}"),
                }
            }
            Ok(_) => {}
            Err(fault) => panic!("{text}: {fault:?}"),
        }
    }
    assert!(page.histograms.is_sorted_by_key(|(of, _)| *of));
    assert!(page.histograms.iter().all(|(of, _)| *of < samples));
}
