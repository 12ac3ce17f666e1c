//! Pages, one after the other.

use super::*;
use crate::config::Config;
use crate::metrics::symbols::Symbols;

fn cache() -> SeriesCache {
    limited(Limits::new(100, 100, 100))
}

fn limited(limits: Limits) -> SeriesCache {
    labelled("", limits)
}

/// With these keys of `metrics`.
fn labelled(metrics: &str, limits: Limits) -> SeriesCache {
    labelled_with(metrics, Arc::new(limits))
}

fn labelled_with(metrics: &str, limits: Arc<Limits>) -> SeriesCache {
    let text = format!("node: n\nlogs: {{ outputs: [ {{ stdout: {{}} }} ] }}\nmetrics: {{ {metrics} }}");
    let config = Arc::new(Config::parse(&text, &|_| None).unwrap());
    let labels = vec![("job".to_owned(), "j".to_owned())];
    let labels = TargetLabels { labels, honor: false, pods: None, config, symbols: Symbols::default() };
    SeriesCache::new(labels, "ns", limits)
}

impl SeriesCache {
    /// Reads a page whose series are named by one letter: what is passed on, and what ends.
    fn scrape(&mut self, page: &str) -> (String, String) {
        let symbols = self.labels.symbols.clone();
        let name = |labels: &SeriesLabels| symbols.lock().text(labels.plain[1]).to_owned();
        let is_whole = self.read(page.as_bytes(), Dialect::Text).is_ok();
        let passed: String = self
            .samples()
            .filter(|_| is_whole)
            .map(|sample| format!("{}={} ", name(sample.labels), sample.value))
            .collect();
        let mut ended = String::new();
        self.end_vanished(is_whole, |labels, _| ended.push_str(&name(&labels)));
        let ended: std::collections::BTreeSet<char> = ended.chars().collect();
        (passed.trim_end().to_owned(), ended.into_iter().collect())
    }
}

#[test]
fn series_are_known_again_wherever_they_stand() {
    let mut cache = cache();
    assert_eq!(cache.scrape("a 1\nb 2\nc 3\n"), ("a=1 b=2 c=3".into(), String::new()));
    assert_eq!(cache.scrape("a 2\nb 3\nc 4"), ("a=2 b=3 c=4".into(), String::new()));
    assert_eq!(cache.scrape("c 5\nb 6\na 7\n"), ("c=5 b=6 a=7".into(), String::new()));
    assert_eq!(
        cache.read(b"c 1\nd 1\n", Dialect::Text),
        Ok(Counts { scraped: 2, passed: 2, added: 1, ..Counts::default() })
    );
}

#[test]
fn what_vanishes_ends_and_what_comes_back_begins_anew() {
    let mut cache = cache();
    cache.scrape("a 1\nb 2\nc 3\n");
    assert_eq!(cache.scrape("a 1\nc 3\n"), ("a=1 c=3".into(), "b".into()));
    assert_eq!(cache.scrape("a 1\nc 3\n"), ("a=1 c=3".into(), String::new()), "once");
    assert_eq!(cache.scrape("d 1\na 1\nb 4\nc 3\n"), ("d=1 a=1 b=4 c=3".into(), String::new()));
    assert_eq!(cache.len(), 4);
}

#[test]
fn a_page_that_is_wrong_anywhere_counts_for_nothing_and_ends_every_series() {
    let mut cache = cache();
    cache.scrape("a 1\nb 2\n");
    assert_eq!(cache.scrape("a 1\nc 2\nb\n"), (String::new(), "ab".into()), "nobody was told of c");
    assert!(cache.is_empty());
    assert_eq!(cache.scrape("b 1\n"), ("b=1".into(), String::new()));
    let fault = cache.read(b"b 1\nc{x=1} 2\n", Dialect::Text).unwrap_err();
    assert_eq!((fault.line, fault.column), (2, Some(5)));
}

#[test]
fn of_a_series_that_stands_twice_the_first_counts() {
    let mut cache = cache();
    for _ in 0..2 {
        assert_eq!(cache.scrape("a 1\na 2\nb 3\n").0, "a=1 b=3");
    }
    assert_eq!(
        cache.read(b"a 1\na 2\nb 3\n", Dialect::Text),
        Ok(Counts { scraped: 3, passed: 2, added: 0, ..Counts::default() })
    );
}

#[test]
fn a_series_with_times_of_its_own_ends_without_a_mark() {
    let mut cache = cache();
    cache.scrape("a 1 1000\nb 2\n");
    assert_eq!(cache.scrape(""), (String::new(), "b".into()));
    assert!(cache.is_empty());
}

#[test]
fn above_a_limit_new_series_are_dropped_and_the_known_ones_go_on() {
    let mut cache = limited(Limits::new(2, 100, 100));
    assert_eq!(cache.scrape("a 1\nb 2\nc 3\n").0, "a=1 b=2");
    let counts = cache.read(b"c 3\nb 4\na 5\nd 6\n", Dialect::Text).unwrap();
    assert_eq!(counts, Counts { scraped: 4, passed: 2, dropped: [2, 0, 0, 0], ..Counts::default() });
    cache.end_vanished(true, |_, _| {});
    assert_eq!(cache.scrape("b 4\n"), ("b=4".into(), "a".into()));
    assert_eq!(cache.scrape("c 3\nb 4\n").0, "c=3 b=4", "there is a place again");
}

#[test]
fn a_series_is_its_labels_however_they_are_written() {
    let mut cache = cache();
    assert_eq!(cache.scrape("a{x=\"1\",y=\"2\"} 1\n"), ("a=1".into(), String::new()));
    assert_eq!(cache.scrape("a{y=\"2\",x=\"1\"} 2\n"), ("a=2".into(), String::new()));
    assert_eq!(
        cache.scrape("a{x=\"1\",y=\"2\",z=\"\"} 3\na{x=\"1\",y=\"2\"} 4\n"),
        ("a=3".into(), String::new())
    );
    for number in 0..100 {
        cache.scrape(&format!("a{{x=\"1\",y=\"2\",e{number}=\"\"}} 5\n"));
    }
    assert_eq!(cache.len(), 1);
    assert_eq!((cache.by_text.len(), cache.aliases.len()), (1, 1));
    assert_eq!(cache.scrape(""), (String::new(), "a".into()));
    assert!(cache.by_text.is_empty() && cache.aliases.is_empty());
}

#[test]
fn what_a_rule_drops_is_read_once_and_takes_no_place() {
    let rules = "relabel: [ { action: drop, source_labels: [__name__], regex: '[bd]' } ]";
    let mut cache = labelled(rules, Limits::new(2, 100, 100));
    for _ in 0..2 {
        assert_eq!(cache.scrape("a 1\nb 2\nc 3\nd 4\n"), ("a=1 c=3".into(), String::new()));
        assert_eq!((cache.len(), cache.relabelled.len()), (2, 2));
    }
    assert_eq!(
        cache.read(b"a 1\nb 2\nc 3\n", Dialect::Text),
        Ok(Counts { scraped: 3, passed: 2, ..Counts::default() })
    );
    cache.end_vanished(true, |_, _| {});
    assert_eq!(cache.relabelled.len(), 1, "what is gone is forgotten");
}

#[test]
fn what_rules_drop_has_as_many_places_as_what_lives_and_gives_them_back() {
    let limits = Arc::new(Limits::new(100, 100, 2));
    let rules = "relabel: [ { action: drop, source_labels: [__name__], regex: '.' } ]";
    let mut cache = labelled_with(rules, limits.clone());
    cache.scrape("a 1\nb 2\nc 3\n");
    assert_eq!(cache.relabelled.len(), 2);
    cache.scrape("c 3\n");
    cache.scrape("c 3\nd 4\n");
    assert_eq!(cache.relabelled.len(), 2, "a and b have given theirs back");
    drop(cache);
    assert!(limits.remember("ns") && limits.remember("ns") && !limits.remember("ns"));
}

/// The start and the exemplar of each sample, by name.
fn told(cache: &mut SeriesCache, page: &str) -> Vec<(String, Option<i64>, Option<Exemplar>)> {
    cache.read(page.as_bytes(), Dialect::OpenMetrics).unwrap();
    cache.end_vanished(true, |_, _| {});
    let table = cache.labels.symbols.lock();
    let name = |sample: &Sample<'_>| table.text(sample.labels.plain[1]).to_owned();
    cache.samples().map(|sample| (name(&sample), sample.start, sample.exemplar.cloned())).collect()
}

#[test]
fn a_created_sample_dates_those_of_its_metric_and_no_others() {
    let mut cache = cache();
    let page = |value: &str| {
        format!(
            "# TYPE g gauge\ng{{x=\"1\"}} 1\n# TYPE a counter\na_total{{x=\"1\"}} 1\na_created{{x=\"1\"}} 100.5\n\
             a_total{{x=\"2\"}} 1\na_created{{x=\"2\"}} {value}\n# TYPE h histogram\nh_bucket{{le=\"1\"}} 1\n\
             h_bucket{{le=\"+Inf\"}} 1\nh_count 1\nh_sum 1\nh_created 300\n# TYPE x_created gauge\nx 1\nx_created 5\n# EOF\n"
        )
    };
    let starts = |told: Vec<(String, Option<i64>, Option<Exemplar>)>| -> Vec<(String, Option<i64>)> {
        told.into_iter().map(|(name, start, _)| (name, start)).collect()
    };
    let expected = |second| {
        [
            ("g", None),
            ("a_total", Some(100_500)),
            ("a_created", None),
            ("a_total", second),
            ("a_created", None),
            ("h_bucket", Some(300_000)),
            ("h_bucket", Some(300_000)),
            ("h_count", Some(300_000)),
            ("h_sum", Some(300_000)),
            ("h_created", None),
            ("x", None),
            ("x_created", None),
        ]
        .map(|(name, start): (&str, Option<i64>)| (name.to_owned(), start))
    };
    for (value, start) in [("200", Some(200_000)), ("201", Some(201_000)), ("NaN", None)] {
        assert_eq!(starts(told(&mut cache, &page(value))), expected(start));
    }
    // A series that goes leaves its slot to another one.
    told(&mut cache, "# TYPE b counter\nb_total 1\nb_total{y=\"1\"} 1\nb_created{y=\"1\"} 7\n# EOF\n");
    assert_eq!(starts(told(&mut cache, &page("200"))), expected(Some(200_000)));
}

#[test]
fn an_exemplar_stays_with_its_sample_and_one_that_is_too_long_is_left_out() {
    let mut cache = cache();
    let long = "x".repeat(128);
    let page = format!(
        "# TYPE a counter\na_total 1 # {{t=\"1\"}} 0.5\na_total{{x=\"1\"}} 1\na_total{{x=\"2\"}} 1 # {{t=\"2\"}} 2 3.5\n\
         a_total{{x=\"3\"}} 1 # {{t=\"{long}\"}} 1\n# EOF\n"
    );
    let exemplar = |label: &str, value, timestamp| {
        Some(Exemplar { labels: vec![("t".to_owned(), label.to_owned())], value, timestamp })
    };
    for _ in 0..2 {
        let exemplars: Vec<_> =
            told(&mut cache, &page).into_iter().map(|(_, _, exemplar)| exemplar).collect();
        assert_eq!(exemplars, [exemplar("1", 0.5, None), None, exemplar("2", 2.0, Some(3_500)), None]);
    }
}

#[test]
fn a_series_has_what_the_comments_of_its_family_say() {
    let page = "# HELP h Some \\\\ help\\nof two lines.\n# TYPE h histogram\n# UNIT h seconds\nh_bucket{le=\"1\"} 1\nh_sum 1\n\
                h_total 1\nother 1\n# TYPE c counter\nc_total 1\n# HELP c Behind.\nc_total{x=\"1\"} 1\n# EOF\n";
    let mut cache = cache();
    cache.read(page.as_bytes(), Dialect::OpenMetrics).unwrap();
    let table = cache.labels.symbols.lock();
    let said = |sample: Sample<'_>| {
        let Metadata { kind, help, unit } = sample.labels.metadata;
        (kind, table.text(help).to_owned(), table.text(unit).to_owned())
    };
    let of = |kind, help: &str, unit: &str| (kind, help.to_owned(), unit.to_owned());
    let histogram = of(Some(exposition::Kind::Histogram), "Some \\ help\nof two lines.", "seconds");
    let counter = |help| of(Some(exposition::Kind::Counter), help, "");
    let nothing = of(None, "", "");
    assert_eq!(
        cache.samples().map(said).collect::<Vec<_>>(),
        [histogram.clone(), histogram, nothing.clone(), nothing, counter(""), counter("Behind.")]
    );
}

#[test]
fn a_page_cannot_make_its_reading_slow_or_its_requests_long() {
    let mut cache = limited(Limits::new(5_000, 10_000, 10_000));
    let long = "x".repeat(MAX_LABEL_BYTES);
    let counts = cache.read(format!("a{{b=\"{long}\"}} 1\nc 1\n").as_bytes(), Dialect::Text).unwrap();
    assert_eq!((counts.passed, counts.dropped), (1, [0, 0, 0, 1]));
    let many: String = (0..20_000).map(|number| format!("n{number} 1\n")).collect();
    let counts = cache.read(many.as_bytes(), Dialect::Text).unwrap();
    assert_eq!(
        (counts.passed, counts.dropped[Limit::Target as usize]),
        (4_999, 15_001),
        "one place is taken"
    );
    let labels: String = (0..300).map(|number| format!("l{number}=\"\",")).collect();
    let fault = cache.read(format!("a{{{labels}}} 1\n").as_bytes(), Dialect::Text).unwrap_err();
    assert!(fault.what.contains("at most 256"), "{fault}");
    let (help, mut cache) = ("y".repeat(100_000), self::cache());
    cache.read(format!("# HELP z {help}\nz 1\n").as_bytes(), Dialect::Text).unwrap();
    let told = cache.samples().next().unwrap().labels.metadata.help;
    assert_eq!(cache.labels.symbols.lock().text(told).len(), 4 << 10);
}

#[test]
fn a_sample_with_a_time_of_its_own_goes_out_once_and_its_series_end_right_behind_it() {
    let mut cache = cache();
    cache.labels.pods = Some(crate::cluster::Store::new());
    let scrape = |cache: &mut SeriesCache, page: &str| {
        let is_whole = cache.read(page.as_bytes(), Dialect::Text).is_ok();
        let passed: Vec<_> = cache.samples().map(|sample| sample.value).collect();
        let mut marks = Vec::new();
        if is_whole {
            cache.end_vanished(true, |_, mark| marks.push(mark));
        }
        cache.forget_page();
        (passed, marks)
    };
    assert_eq!(scrape(&mut cache, "a 1 1000\nb 2 1000\n"), (vec![1.0, 2.0], vec![]));
    assert_eq!(scrape(&mut cache, "a 1 1000\nb 3 2000\n"), (vec![3.0], vec![]));
    // What was read of a page that is wrong further on was not passed on.
    scrape(&mut cache, "a 4 3000\nb 4 3000\nwrong\n");
    assert_eq!(scrape(&mut cache, "a 4 3000\nb 4 3000\n"), (vec![4.0, 4.0], vec![]));
    assert_eq!(scrape(&mut cache, "a 5 4000\n"), (vec![5.0], vec![Some(3001)]));
    assert_eq!(scrape(&mut cache, "a 6 5000\nb 4 3000\n"), (vec![6.0], vec![]), "before its mark");
    assert_eq!(scrape(&mut cache, "a 7 6000\nb 5 4000\n"), (vec![7.0, 5.0], vec![]));
    // The clock is set back.
    assert_eq!(scrape(&mut cache, "a 8 -400000\nb 6 6000\n"), (vec![8.0, 6.0], vec![]));
}
