//! Pages, one after the other.

use super::*;
use crate::config::Config;

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
    let labels = TargetLabels { labels: vec![("job".to_owned(), "j".to_owned())], honor: false, config };
    SeriesCache::new(labels, "ns", limits)
}

impl SeriesCache {
    /// Reads a page whose series are named by one letter: what is passed on, and what ends.
    fn scrape(&mut self, page: &str) -> (String, String) {
        let name = |labels: &Encoded| char::from(labels.plain[4 + "__name__".len() + 2]);
        let is_whole = self.read(page.as_bytes(), Dialect::Text).is_ok();
        let passed: String = self
            .samples()
            .filter(|_| is_whole)
            .map(|(labels, point)| format!("{}={} ", name(labels), point.value))
            .collect();
        let mut ended = String::new();
        self.end_vanished(is_whole, |labels| ended.push(name(&labels)));
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
    assert_eq!(counts, Counts { scraped: 4, passed: 2, dropped: [2, 0, 0], ..Counts::default() });
    cache.end_vanished(true, |_| {});
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
    assert!(cache.by_text.len() <= 3);
    assert_eq!(cache.scrape(""), (String::new(), "a".into()));
    assert!(cache.by_text.is_empty());
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
    cache.end_vanished(true, |_| {});
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
