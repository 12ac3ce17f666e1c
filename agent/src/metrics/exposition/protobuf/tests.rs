//! Pages as exporters send them, encoded here.

use super::*;
use crate::delivery::protobuf::{double, length_delimited, number, varint};
use crate::metrics::exposition::{Dialect, Line, check};

const LIMIT: usize = 1 << 20;

/// A message of these fields, each with what stands in it.
fn message(parts: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (field, part) in parts {
        length_delimited(&mut bytes, *field, part.len());
        bytes.extend_from_slice(part);
    }
    bytes
}

fn with_double(field: u32, value: f64) -> Vec<u8> {
    let mut bytes = Vec::new();
    double(&mut bytes, field, value);
    bytes
}

fn with_number(field: u32, value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    number(&mut bytes, field, value);
    bytes
}

fn pair(name: &str, value: &str) -> Vec<u8> {
    message(&[(1, name.into()), (2, value.into())])
}

/// A family of one metric: `field` is where its kind stands in `Metric`.
fn family(name: &str, kind: u64, labels: &[(&str, &str)], field: u32, value: &[u8]) -> Vec<u8> {
    let labels = labels.iter().map(|(name, value)| (1, pair(name, value)));
    let metric = message(&labels.chain([(field, value.to_vec())]).collect::<Vec<_>>());
    let mut family = message(&[(1, name.into()), (2, b"He\\lp\n.".to_vec()), (4, metric)]);
    family.extend(with_number(3, kind));
    let mut page = Vec::new();
    varint(&mut page, family.len() as u64);
    page.extend(family);
    page
}

fn text(page: &[u8]) -> String {
    String::from_utf8(written(page, LIMIT).unwrap().text).unwrap()
}

#[test]
fn every_kind_is_written_as_open_metrics_has_it() {
    let created = message(&[(3, [with_number(1, 1000), with_number(2, 500_000_000)].concat())]);
    let exemplar = [message(&[(1, pair("t", "1"))]), with_double(2, 0.5), message(&[(3, with_number(1, 7))])];
    let counter = [with_double(1, 3.0), message(&[(2, exemplar.concat())]), created].concat();
    let quantile = [with_double(1, 1.0), with_double(2, 9.0)].concat();
    let summary = [with_number(1, 2), with_double(2, 10.0), message(&[(3, quantile)])].concat();
    let page = [
        family("a_total", 0, &[("x", "1\"\\")], 3, &counter),
        family("g.x", 1, &[], 2, &with_double(1, f64::INFINITY)),
        family("s", 2, &[], 4, &summary),
    ]
    .concat();
    let expected = r#"# TYPE a counter
# HELP a He\\lp\n.
a_total{x="1\"\\"} 3 # {t="1"} 0.5 7
a_created{x="1\"\\"} 1000.5
# TYPE "g.x" gauge
# HELP "g.x" He\\lp\n.
{"g.x"} +Inf
# TYPE s summary
# HELP s He\\lp\n.
s{quantile="1.0"} 9
s_sum 10
s_count 2
# EOF
"#;
    assert_eq!(text(&page), expected);
    check(expected.as_bytes(), Dialect::OpenMetrics).unwrap();
}

/// `Bucket`
fn bucket(count: u64, bound: f64) -> (u32, Vec<u8>) {
    (3, [with_number(1, count), with_double(2, bound)].concat())
}

#[test]
fn a_classic_histogram_has_its_last_bucket_whether_it_is_sent_or_not() {
    let totals = [with_number(1, 5), with_double(2, 2.5)].concat();
    for bounds in [&[(3, 1.0), (4, 2.5)][..], &[(3, 1.0), (4, 2.5), (5, f64::INFINITY)]] {
        let buckets: Vec<_> = bounds.iter().map(|(count, bound)| bucket(*count, *bound)).collect();
        let page = family("h", 4, &[], 7, &[totals.clone(), message(&buckets)].concat());
        let read = written(&page, LIMIT).unwrap();
        assert!(read.histograms.is_empty());
        let expected = "h_bucket{le=\"1.0\"} 3\nh_bucket{le=\"2.5\"} 4\nh_bucket{le=\"+Inf\"} 5\nh_sum 2.5\nh_count 5\n# EOF\n";
        assert!(text(&page).ends_with(expected), "{}", text(&page));
    }
}

/// A histogram with an observation in the zero bucket, one below zero and one above, of three in all.
fn native() -> Vec<Vec<u8>> {
    let span = |offset: u64, length| [with_number(1, offset), with_number(2, length)].concat();
    vec![
        with_number(1, 3),
        with_double(2, 2.5),
        with_number(5, 6),
        with_double(6, 0.001),
        with_number(7, 1),
        message(&[(9, span(0, 1)), (12, span(3, 2)), (13, vec![2, 1])]),
        with_number(10, 2),
    ]
}

#[test]
fn a_native_histogram_stands_beside_its_sample_with_all_that_remote_write_wants() {
    let native = native().concat();
    let page = [family("g", 1, &[], 2, &with_double(1, 1.0)), family("h", 4, &[], 7, &native)].concat();
    let read = written(&page, LIMIT).unwrap();
    let span = |offset: u64, length| [with_number(1, offset), with_number(2, length)].concat();
    let expected = [
        with_number(1, 3),
        with_double(3, 2.5),
        with_number(4, 6),
        with_double(5, 0.001),
        with_number(6, 1),
        message(&[(8, span(0, 1)), (9, vec![2]), (11, span(3, 2)), (12, vec![2, 1])]),
    ];
    assert_eq!(read.histograms, [(1, expected.concat().into())]);
    assert!(text(&page).ends_with("h 3\n# EOF\n"), "no classic series: {}", text(&page));
    let both = [native.clone(), message(&[bucket(3, 1.0)])].concat();
    assert!(text(&family("h", 4, &[], 7, &both)).contains("h_bucket{le=\"1.0\"} 3\n"));
    let of_gauge = written(&family("h", 5, &[], 7, &native), LIMIT).unwrap();
    assert_eq!(of_gauge.histograms[0].1[expected.concat().len()..], with_number(14, 3));
}

#[test]
fn a_native_histogram_that_does_not_fit_together_is_left_out_and_the_classic_one_stays() {
    let with = |index: usize, part: Vec<u8>| {
        let mut parts = native();
        parts[index] = part;
        parts.push(message(&[bucket(3, 1.0)]));
        written(&family("h", 4, &[], 7, &parts.concat()), LIMIT)
    };
    let span = |length| [with_number(1, 0), with_number(2, length)].concat();
    let far = |length| [with_number(1, u64::from(u32::MAX) - 1), with_number(2, length)].concat();
    for (index, part) in [
        // More observations than buckets have, and fewer; another schema; a width that is none.
        (0, with_number(1, 4)),
        (0, with_number(1, 2)),
        (2, with_number(5, 40)),
        (3, with_double(6, f64::NAN)),
        // Spans with too many buckets, or too long; a count below zero; deltas and floats.
        (5, message(&[(9, span(1)), (12, span(3)), (13, vec![2, 1])])),
        (5, message(&[(9, span(1)), (12, span(u64::MAX)), (12, span(3)), (13, vec![2, 1])])),
        (5, message(&[(9, span(1)), (12, span(2)), (13, vec![2, 3])])),
        (5, message(&[(9, span(1)), (12, span(2)), (13, vec![2, 1]), (14, 1.0_f64.to_le_bytes().to_vec())])),
        // More buckets than are kept, and spans beyond 32 bits.
        (5, message(&[(9, span(1)), (12, span(20_000)), (13, vec![0; 20_000])])),
        (5, message(&[(9, span(1)), (12, far(2)), (12, far(0)), (13, vec![2, 1])])),
    ] {
        let read = with(index, part.clone()).unwrap();
        assert_eq!(read.histograms, [], "{part:?}");
        assert!(String::from_utf8(read.text).unwrap().contains("h_bucket"));
    }
    for malformed in [message(&[(12, vec![0xff])]), message(&[(13, vec![0x80])]), message(&[(14, vec![1])])] {
        assert_eq!(with(5, malformed), Err(Unwritten::Malformed));
    }
}

#[test]
fn a_histogram_of_floats_is_one_before_it_has_counted_anything() {
    let span = [with_number(1, 0), with_number(2, 2)].concat();
    let counts = |first: f64| [first, 0.0].map(f64::to_le_bytes).concat();
    let of = |first: f64, zero: f64| {
        let parts = [
            with_double(4, first),
            with_double(2, f64::NAN),
            with_double(8, zero),
            message(&[(12, span.clone()), (14, counts(first))]),
        ];
        written(&family("h", 4, &[], 7, &parts.concat()), LIMIT).unwrap().histograms
    };
    for first in [0.0, 1.5] {
        let histograms = of(first, 0.0);
        assert!(histograms[0].1.starts_with(&with_double(2, first)), "{histograms:?}");
    }
    assert_eq!(of(1.5, -1.0), []);
}

#[test]
fn a_small_page_cannot_become_a_large_one() {
    let metrics: Vec<_> = (0..10_000).map(|_| (4, Vec::new())).collect();
    let family = [message(&[(1, vec![b'a'; 1_000])]), message(&metrics)].concat();
    let mut page = Vec::new();
    varint(&mut page, family.len() as u64);
    page.extend(family);
    assert_eq!(written(&page, LIMIT), Err(Unwritten::TooLong(LIMIT)));
}

#[test]
fn bounds_are_those_that_prometheus_has() {
    // As Go's `strconv.FormatFloat(f, 'g', -1, 64)` prints them, and `.0`.
    for (bound, text) in [
        (0.000_01, "1e-05"),
        (0.000_1, "0.0001"),
        (0.5, "0.5"),
        (1.0, "1.0"),
        (100_000.0, "100000.0"),
        (1_000_000.0, "1e+06"),
        (10_485_760.0, "1.048576e+07"),
        (1e22, "1e+22"),
        (2.5e-7, "2.5e-07"),
        (f64::INFINITY, "+Inf"),
    ] {
        assert_eq!(bound_text(bound), text);
    }
}

#[test]
fn what_is_cut_or_no_text_is_malformed() {
    let page = family("a", 1, &[], 2, &with_double(1, 1.0));
    for end in 1..page.len() {
        assert_eq!(written(&page[..end], LIMIT), Err(Unwritten::Malformed), "{end}");
    }
    assert_eq!(written(&[4, 0x0a, 2, 0xff, 0xff], LIMIT), Err(Unwritten::Malformed));
    assert_eq!(written(&page, 10), Err(Unwritten::TooLong(10)));
}

/// Pages with wrong bytes in them: whatever comes of one is within its limit and can be read, line by line.
#[test]
fn a_damaged_page_is_refused_or_can_be_read() {
    let exemplar =
        [message(&[(1, pair("t", "1"))]), with_double(2, 0.5), message(&[(3, with_number(1, 7))])].concat();
    let counter = [with_double(1, 3.0), message(&[(2, exemplar)])].concat();
    let both = [native().concat(), message(&[bucket(3, 1.0)])].concat();
    let page = [
        family("a_total", 0, &[("x", "1")], 3, &counter),
        family("h", 4, &[("y", "é")], 7, &both),
        family("s", 2, &[], 4, &with_number(1, 2)),
    ]
    .concat();
    let (limit, mut state) = (1 << 14, 0x9e37_79b9_7f4a_7c15_u64);
    let mut below = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % limit as u64) as usize
    };
    let mut read_pages = 0;
    for _ in 0..50_000 {
        let mut page = page.clone();
        for _ in 0..=below(3) {
            let at = below(page.len());
            page[at] = below(256) as u8;
        }
        let Ok(read) = written(&page, limit) else { continue };
        read_pages += 1;
        assert!(read.text.len() <= limit + 2 * page.len(), "one line more at most");
        let lines = read.text.split(|byte| *byte == b'\n').map(|line| Line::read(line, Dialect::OpenMetrics));
        let samples = lines.filter(|line| matches!(line, Ok(Line::Sample(_)))).count();
        let text = String::from_utf8_lossy(&read.text);
        assert_eq!(samples, text.lines().filter(|line| !line.starts_with('#')).count(), "{text}");
        assert!(read.histograms.iter().all(|(sample, _)| *sample < samples), "{text}");
    }
    assert!(read_pages > 10_000, "{read_pages}");
}
