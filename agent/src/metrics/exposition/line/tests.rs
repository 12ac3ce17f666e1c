//! Lines and their parts.

use super::*;

fn sample(line: &str, dialect: Dialect) -> Result<Sample<'_>, Fault> {
    match Line::read(line.as_bytes(), dialect)? {
        Line::Sample(sample) => Ok(sample),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sample_has_its_parts_whatever_its_labels_say() {
    for (series, value, timestamp) in [
        ("a", "1", None),
        ("a", "-2.5e-3", Some(7)),
        (r#"a{b="c"}"#, "NaN", None),
        (r#"a{b="} 2 # \" {",c=""}"#, "3", Some(-1)),
        (r#"{"a.b",c="d e"}"#, "4", None),
    ] {
        for dialect in [Dialect::Text, Dialect::OpenMetrics] {
            let time = match (timestamp, dialect) {
                (Some(time), Dialect::Text) => format!(" {time}"),
                (Some(time), Dialect::OpenMetrics) => format!(" {}", f64::from(time) / 1_000.0),
                (None, _) => String::new(),
            };
            let line = format!("{series} {value}{time}");
            let sample = sample(&line, dialect).unwrap();
            assert_eq!((sample.series, sample.value), (series.as_bytes(), value.as_bytes()));
            assert_eq!(sample.timestamp, timestamp.map(i64::from));
        }
    }
}

#[test]
fn text_takes_any_blanks_and_open_metrics_only_one_space() {
    let text = sample("\t a \t{ b = \"c\" , } \t1  2\t", Dialect::Text).unwrap();
    assert_eq!((text.series, text.value, text.timestamp), (&b"a \t{ b = \"c\" , }"[..], &b"1"[..], Some(2)));
    assert!(sample("a{b=\"c\"}1", Dialect::Text).is_ok());
    for line in ["a  1", "a 1 ", "a\t1", " a 1", "a {b=\"c\"} 1", "a{b=\"c\"}1", "a 1  2", "a 1 # {} 1 "] {
        assert!(
            sample(line, Dialect::OpenMetrics).map_or(true, |sample| sample.value().is_none()),
            "{line:?}"
        );
    }
}

#[test]
fn exemplars_are_read_on_pages_of_either_kind() {
    let line = r#"a_bucket{le="1"} 3 # {trace_id="x } #"} 0.5 1.25"#;
    for dialect in [Dialect::Text, Dialect::OpenMetrics] {
        let exemplar = sample(line, dialect).unwrap().exemplar;
        let labels = br#"{trace_id="x } #"}"#;
        assert_eq!(exemplar, Some(Exemplar { labels, value: 0.5, timestamp: Some(1_250) }));
    }
    for line in ["a 1 #", "a 1 # {}", "a 1 # {} x", "a 1 # {} 1 x", "a 1 # {", "a 1 1 1"] {
        assert!(sample(line, Dialect::Text).is_err(), "{line:?}");
    }
}

#[test]
fn what_stands_behind_a_hash_describes_a_family_or_is_a_comment() {
    let read = |line: &'static str, dialect| Line::read(line.as_bytes(), dialect);
    let help = Line::Help { name: b"a", text: br"what \\ it is " };
    assert_eq!(read(r"# HELP a what \\ it is ", Dialect::OpenMetrics), Ok(help));
    assert_eq!(read("#\tHELP  a\t", Dialect::Text), Ok(Line::Help { name: b"a", text: b"" }));
    assert_eq!(read("# HELP a ", Dialect::OpenMetrics), Ok(Line::Help { name: b"a", text: b"" }));
    let kind = Line::Type { name: b"\"a b\"", kind: Kind::Counter };
    assert_eq!(read("# TYPE \"a b\" counter", Dialect::Text), Ok(kind));
    assert_eq!(read("# UNIT a_s s", Dialect::OpenMetrics), Ok(Line::Unit { name: b"a_s", unit: b"s" }));
    assert_eq!(read("# EOF", Dialect::OpenMetrics), Ok(Line::Eof));
    for comment in ["#", "#a", "# a", "# HELP", "# HELPER a b", "# UNIT a_s s", "# EOF"] {
        assert_eq!(read(comment, Dialect::Text), Ok(Line::Comment), "{comment}");
    }
    for wrong in ["#", "#a", "# a", "# HELP", "# HELP a", "# TYPE a", "# EOF ", "# EOFs", "# TYPE a untyped"]
    {
        assert!(read(wrong, Dialect::OpenMetrics).is_err(), "{wrong}");
    }
    assert!(read("# TYPE a info", Dialect::Text).is_err());
}
