use super::*;

const PATTERNS: [&str; 3] = ["email", "card", "token"];

fn everything() -> Allow {
    Allow::new(&["*".to_owned()]).unwrap()
}

/// Annotations whose keys are given without prefix, as the container `web` sees them.
fn web(annotations: &[(&str, &str)]) -> LogAnnotations {
    let prefixed: Vec<_> =
        annotations.iter().map(|(key, value)| (format!("{PREFIX}{key}"), *value)).collect();
    log_annotations(
        prefixed.iter().map(|(key, value)| (key.as_str(), *value)),
        "web",
        &everything(),
        &PATTERNS,
    )
}

#[test]
fn every_value_is_read() {
    let said = web(&[
        ("logs", "false"),
        ("logs.parse", "tracing"),
        ("logs.multiline", "rust"),
        ("logs.tag", "shop_web-1"),
        ("logs.rate", "500"),
        ("logs.sample", "0.25"),
        ("logs.redact", "email, card"),
        ("metrics.port", "9090"),
    ]);
    let expected = LogAnnotations {
        collect: Some(false),
        parse: Some(Parse::Tracing),
        multiline: Some(Multiline::Rust),
        tag: Some("shop_web-1".to_owned()),
        rate: Some(500),
        sample: Some(0.25),
        redact: vec![Redaction::Builtin("email".to_owned()), Redaction::Builtin("card".to_owned())],
    };
    assert_eq!(said, expected);
}

#[test]
fn nothing_is_said_by_a_pod_without_ours() {
    let said =
        log_annotations([("logs.parse", "json"), ("other.dev/logs", "false")], "web", &everything(), &[]);
    assert_eq!(said, LogAnnotations::default());
}

#[test]
fn a_value_for_the_container_wins_in_any_order() {
    let (all, one, other) = (("logs.parse", "json"), ("logs.parse.web", "logfmt"), ("logs.parse.db", "none"));
    for order in [[all, one, other], [other, one, all]] {
        assert_eq!(web(&order).parse, Some(Parse::Logfmt));
    }
    assert_eq!(web(&[all, other]).parse, Some(Parse::Json));
    assert_eq!(web(&[other]).parse, None);
}

#[test]
fn a_bad_value_counts_as_absent() {
    assert_eq!(web(&[("logs.rate", "500"), ("logs.rate.web", "fast")]).rate, Some(500));
    for (key, value) in [
        ("logs", "yes"),
        ("logs", "True"),
        ("logs.parse", "xml"),
        ("logs.parse", ""),
        ("logs.multiline", ""),
        ("logs.tag", ""),
        ("logs.tag", "a.b"),
        ("logs.tag", "Web"),
        ("logs.rate", "0"),
        ("logs.rate", "-1"),
        ("logs.rate", "1.5"),
        ("logs.rate", "4294967296"),
        ("logs.sample", "1.01"),
        ("logs.sample", "-0.1"),
        ("logs.sample", "NaN"),
        ("logs.sample", "inf"),
        ("logs.sample", "half"),
    ] {
        assert_eq!(web(&[(key, value)]), LogAnnotations::default(), "{key}={value:?}");
    }
}

#[test]
fn limits_are_inclusive() {
    assert_eq!(web(&[("logs.sample", "0")]).sample, Some(0.0));
    assert_eq!(web(&[("logs.sample", "1")]).sample, Some(1.0));
    assert_eq!(web(&[("logs.rate", "1")]).rate, Some(1));
    assert_eq!(web(&[("logs.tag", &"a".repeat(63))]).tag, Some("a".repeat(63)));
    assert_eq!(web(&[("logs.tag", &"a".repeat(64))]).tag, None);
    let longest = "a".repeat(MAX_REGEX_BYTES);
    assert_eq!(web(&[("logs.multiline", &longest)]).multiline, Some(Multiline::Start(longest.clone())));
    assert_eq!(web(&[("logs.multiline", &format!("{longest}a"))]).multiline, None);
}

#[test]
fn what_the_operator_forbids_is_ignored_with_and_without_suffix() {
    let annotations = [
        ("sidelight.dev/logs.tag", "a"),
        ("sidelight.dev/logs.tag.web", "b"),
        ("sidelight.dev/logs", "true"),
    ];
    let said = log_annotations(annotations, "web", &Allow::default(), &[]);
    assert_eq!(said, LogAnnotations { collect: Some(true), ..LogAnnotations::default() });
}

#[test]
fn a_regex_to_redact_may_have_commas() {
    let regex = r"\d{3,5}-\d{2,4}";
    assert_eq!(web(&[("logs.redact", regex)]).redact, [Redaction::Regex(regex.to_owned())]);
}

#[test]
fn a_redaction_that_cannot_be_done_is_never_dropped() {
    let unusable = |value: &str| {
        matches!(web(&[("logs.redact", value)]).redact.as_slice(), [.., Redaction::Unusable(_)])
    };
    assert!(unusable("email,crad"));
    assert!(unusable(""));
    assert!(unusable(&"a".repeat(MAX_REGEX_BYTES + 1)));
    let for_web_only = web(&[("logs.redact", "email"), ("logs.redact.web", "")]);
    assert!(
        matches!(for_web_only.redact.as_slice(), [Redaction::Unusable(_)]),
        "not the pod's, which the container's replaces"
    );
}

#[test]
fn a_pattern_named_many_times_is_used_once() {
    let many = "card,email,".repeat(20_000) + "email";
    assert_eq!(
        web(&[("logs.redact", &many)]).redact,
        [Redaction::Builtin("email".to_owned()), Redaction::Builtin("card".to_owned())]
    );
    assert_eq!(web(&[("logs.redact", &(many + &",wrong".repeat(20_000)))]).redact.len(), 1);
}

#[test]
fn regexes_beyond_the_limit_of_a_pod_are_not_used() {
    let mut annotations: Vec<(String, &str)> =
        (0..MAX_REGEXES).map(|n| (format!("{PREFIX}logs.multiline.c{n}"), "^start")).collect();
    annotations.push((format!("{PREFIX}logs.redact.c0"), "secret=.*"));
    annotations.push((format!("{PREFIX}logs.redact.c1"), "email"));
    for _ in 0..2 {
        let said = |container| {
            let annotations = annotations.iter().map(|(key, value)| (key.as_str(), *value));
            log_annotations(annotations, container, &everything(), &PATTERNS)
        };
        assert_eq!(said("c7").multiline, Some(Multiline::Start("^start".to_owned())));
        assert_eq!(said("c0").redact, [Redaction::Unusable(too_many_regexes())]);
        assert_eq!(said("c1").redact, [Redaction::Builtin("email".to_owned())]);
        annotations.reverse();
    }
}

#[test]
fn names_are_written_as_they_are_read() {
    for parse in Parse::ALL {
        assert_eq!(parse.to_string().parse(), Ok(parse));
    }
    for name in Multiline::NAMES {
        let multiline: Multiline = name.parse().unwrap();
        assert!(!matches!(multiline, Multiline::Start(_)), "{name}");
        assert_eq!(multiline.to_string(), name);
    }
    assert_eq!("^\\d".parse::<Multiline>().map(|start| start.to_string()), Ok("^\\d".to_owned()));
}

#[test]
fn a_wrong_parser_is_told_with_the_right_ones() {
    assert_eq!(
        "jsn".parse::<Parse>().unwrap_err(),
        r#""jsn" is not allowed; it must be one of none, json, auto, tracing, logfmt; did you mean "json"?"#
    );
}
