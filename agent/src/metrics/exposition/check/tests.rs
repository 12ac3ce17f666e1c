//! Pages, and the first rule of OpenMetrics 1.0 that they break.

use super::*;

/// Pages as lines, without `# EOF`; what is said of them.
fn assert_broken(pages: &[(&str, &str)]) {
    for (page, says) in pages {
        let text = format!("{}\n# EOF\n", page.replace(" / ", "\n"));
        let fault = check(text.as_bytes(), Dialect::OpenMetrics).expect_err(page);
        assert!(fault.what.contains(says), "{page}: {fault}");
    }
}

fn assert_whole(pages: &[&str]) {
    for page in pages {
        let text = format!("{}\n# EOF\n", page.replace(" / ", "\n"));
        assert_eq!(check(text.as_bytes(), Dialect::OpenMetrics), Ok(()), "{page}");
    }
}

#[test]
fn a_page_ends_with_eof_and_has_no_blank_lines_or_comments() {
    for page in ["# EOF", "# EOF\n", "a 1\n# EOF\n"] {
        assert_eq!(check(page.as_bytes(), Dialect::OpenMetrics), Ok(()), "{page:?}");
    }
    for page in ["", "a 1\n", "# EOF\n\n", "# EOF\na 1\n", "a 1\n\n# EOF\n", "# note\n# EOF\n", "# EOFs\n"] {
        assert!(check(page.as_bytes(), Dialect::OpenMetrics).is_err(), "{page:?}");
    }
}

#[test]
fn a_family_is_described_once_before_its_samples_and_stands_in_one_place() {
    assert_whole(&[
        "# HELP a  / # UNIT a ",
        "# TYPE a_s gauge / # UNIT a_s s / # HELP a_s x / a_s 1",
        "# TYPE a info / # TYPE b counter / a_x 1",
        "# HELP a he\0lp / a 1",
    ]);
    assert_broken(&[
        ("# HELP a x / # HELP a x", "HELP stands twice"),
        ("# TYPE a gauge / # TYPE a gauge", "TYPE stands twice"),
        ("# UNIT a_s s / # UNIT a_s s", "UNIT stands twice"),
        ("# HELP a x / a 1 / # TYPE a gauge", "before the samples"),
        ("# UNIT a s", "does not end with its unit"),
        ("# TYPE a_u info / # UNIT a_u u", "cannot have a unit"),
        ("a 1 / b 1 / a 1", "not in one place"),
        ("# TYPE a_created gauge / # TYPE a counter", "two families"),
        ("# TYPE a counter / a 1", "two families"),
        ("# TYPE a summary / b 0 / a_sum 0", "two families"),
    ]);
}

#[test]
fn the_samples_of_a_metric_stand_together_in_the_order_of_time() {
    assert_whole(&[
        "# TYPE a gauge / a{b=\"1\"} 1 0.0001 / a{b=\"1\"} 2 0.0002 / a{b=\"2\"} 1 0",
        "# TYPE a info / a_info{b=\"1\"} 1 1 / a_info{b=\"1\"} 1 0",
    ]);
    assert_broken(&[
        ("# TYPE a gauge / a{b=\"1\"} 1 / a{b=\"2\"} 1 / a{b=\"1\"} 1", "do not stand together"),
        ("# TYPE a gauge / a 0 1.1 / a 0 1", "order of time"),
        ("# TYPE a gauge / a 0 -1 / a 0 -1.1", "order of time"),
        ("# TYPE a gauge / a 0 / a 0 0", "all samples of a metric have times, or none"),
        ("# TYPE a gaugehistogram / a_gsum{b=\"1\"} 0 / a_gsum{b=\"2\"} 0", "le=\"+Inf\""),
    ]);
}

#[test]
fn values_are_what_their_kind_allows() {
    assert_whole(&["# TYPE a stateset / a{a=\"x\"} 0 / a{a=\"y\"} 1.0", "a NaN", "# TYPE a gauge / a -Inf"]);
    assert_broken(&[
        ("# TYPE a counter / a_total NaN", "neither negative nor NaN"),
        ("# TYPE a counter / a_total -1", "neither negative nor NaN"),
        ("# TYPE a summary / a_sum -1", "neither negative nor NaN"),
        ("# TYPE a summary / a_count NaN", "neither negative nor NaN"),
        ("# TYPE a summary / a{quantile=\"0.5\"} -1", "quantile is not negative"),
        ("# TYPE a info / a_info 2", "info is 1"),
        ("# TYPE a stateset / a{a=\"x\"} 2", "0 or 1"),
        ("a 0x1", "is no number"),
        ("a 1_2", "is no number"),
        ("a 1 NaN", "no time"),
    ]);
}

#[test]
fn labels_that_a_kind_needs_are_there() {
    assert_broken(&[
        ("# TYPE a summary / a 0", "label quantile is missing"),
        ("# TYPE a summary / a{quantile=\"1.01\"} 0", "from 0 to 1"),
        ("# TYPE a summary / a{quantile=\"NaN\"} 0", "from 0 to 1"),
        ("# TYPE a histogram / a_bucket 0", "label le is missing"),
        ("# TYPE a histogram / a_bucket{le=\"+INF\"} 0", "le is a number or +Inf"),
        ("# TYPE a stateset / a 0", "label a is missing"),
    ]);
}

#[test]
fn a_histogram_is_complete_and_only_grows() {
    assert_whole(&[
        "# TYPE a histogram / a_bucket{le=\"1e-04\"} 0 / a_bucket{le=\"1\"} 2 / a_bucket{le=\"+Inf\"} 3 / a_count 3 / a_sum 2",
        "# TYPE a histogram / a_bucket{le=\"-1\"} 0 / a_bucket{le=\"+Inf\"} 3",
        "# TYPE a gaugehistogram / a_bucket{le=\"-1\"} 1 / a_bucket{le=\"+Inf\"} 3 / a_gcount 3 / a_gsum -5",
        "# TYPE a histogram / a_bucket{le=\"+Inf\"} 1 1 / a_count 1 1 / a_sum 1 1 / a_bucket{le=\"+Inf\"} 2 2 / a_count 2 2 / a_sum 2 2",
    ]);
    assert_broken(&[
        ("# TYPE a histogram / a_sum 1", "le=\"+Inf\""),
        ("# TYPE a histogram / a_bucket{le=\"1\"} 0", "le=\"+Inf\""),
        ("# TYPE a histogram / a_bucket{le=\"+Inf\"} 0 / a_sum 0", "both a sum and a count"),
        ("# TYPE a histogram / a_bucket{le=\"+Inf\"} 0 / a_count 0", "both a sum and a count"),
        ("# TYPE a histogram / a_bucket{le=\"+Inf\"} 0 / a_count 1 / a_sum 1", "that of its bucket +Inf"),
        ("# TYPE a histogram / a_bucket{le=\"2\"} 0 / a_bucket{le=\"1\"} 0", "order of le"),
        ("# TYPE a histogram / a_bucket{le=\"1\"} 1 / a_bucket{le=\"+Inf\"} 0", "ones before it"),
        ("# TYPE a histogram / a_bucket{le=\"+Inf\"} -1", "neither negative nor NaN"),
        (
            "# TYPE a histogram / a_bucket{le=\"-1\"} 1 / a_bucket{le=\"+Inf\"} 2 / a_count 2 / a_sum 1",
            "has no sum",
        ),
        ("# TYPE a gaugehistogram / a_bucket{le=\"+Inf\"} 1 / a_gsum -1 / a_gcount 1", "cannot be negative"),
        ("# TYPE a gaugehistogram / a_bucket{le=\"+Inf\"} 1 / a_gsum NaN / a_gcount 1", "cannot be NaN"),
    ]);
}

#[test]
fn exemplars_stand_at_totals_and_buckets_and_are_short() {
    let exactly = format!("# TYPE a counter / a_total 1 # {{b=\"{}\"}} 1 1", "é".repeat(127));
    assert_whole(&[&exactly, "# TYPE a gaugehistogram / a_bucket{le=\"+Inf\"} 1 # {} 1"]);
    let longer = format!("# TYPE a counter / a_total 1 # {{b=\"{}\"}} 1 1", "é".repeat(128));
    assert_broken(&[
        (&longer, "129 characters"),
        ("# TYPE a gauge / a 1 # {b=\"c\"} 1", "have exemplars"),
        ("# TYPE a counter / a_created 1 # {b=\"c\"} 1", "have exemplars"),
        ("# TYPE a_bucket gauge / a_bucket 1 # {b=\"c\"} 1", "have exemplars"),
        ("# TYPE a counter / a_total 1 # {b=\"c\"} 1 NaN", "no time"),
        ("# TYPE a counter / a_total 1 # {1=\"c\"} 1", "in the exemplar's labels"),
    ]);
}

#[test]
fn a_page_of_text_is_checked_line_by_line() {
    let page = "# a comment\n\n# HELP a b\n# TYPE a untyped\na{b=\"c\",} 1 7\n a 2\n";
    assert_eq!(check(page.as_bytes(), Dialect::Text), Ok(()));
    let faults = ["  a{b} 1", "a x", "# TYPE a.b gauge", "# TYPE a info", "a 1 1.5"]
        .map(|line| check(format!("a 1\n{line}\n").as_bytes(), Dialect::Text).unwrap_err().to_string());
    assert_eq!(faults[0], "line 2, column 6: a label has a value behind =");
    assert_eq!(faults[1], "line 2: the value \"x\" is no number");
    assert!(faults.iter().all(|fault| fault.starts_with("line 2")));
}
