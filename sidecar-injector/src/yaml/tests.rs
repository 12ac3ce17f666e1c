use json_patch::Patch;
use serde_json::{Value, json};

use super::*;

fn edited(text: &str, operations: Value) -> Result<String, String> {
    let patch: Patch = serde_json::from_value(operations).unwrap();
    edit(text, &[(0, patch)]).map(|edited| edited.text)
}

fn add(path: &str, value: &str) -> Value {
    json!([{ "op": "add", "path": path, "value": value }])
}

/// A list that is added to at both ends and a map, in what `text` has at `l` and `m`.
fn all(text: &str) -> String {
    let operations = json!([
        { "op": "add", "path": "/l/0", "value": { "name": "first", "a": 1 } },
        { "op": "add", "path": "/l/-", "value": { "name": "last" } },
        { "op": "add", "path": "/m/k", "value": "v" },
    ]);
    edited(text, operations).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn every_way_to_write_a_list_and_a_map_is_added_to_in_its_own_style() {
    for (text, expected) in [
        ("m:\n  x: y\nl:\n- z\n", "m:\n  x: y\n  k: v\nl:\n- name: first\n  a: 1\n- z\n- name: last\n"),
        (
            "# c\nl: # c\n  # z\n\n  # y\n  - z # z\n  # end\nm:  # m\n    x: y # y\n    # end\n# tail",
            "# c\nl: # c\n  - name: first\n    a: 1\n  # z\n\n  # y\n  - z # z\n  - name: last\n  # end\nm:  # m\n    x: y # y\n    k: v\n    # end\n# tail",
        ),
        (
            "m: {x: y}\nl: [z]",
            "m: {x: y, \"k\": \"v\"}\nl: [{\"name\": \"first\", \"a\": 1}, z, {\"name\": \"last\"}]",
        ),
        ("m: {}\nl: []\n", "m: {\"k\": \"v\"}\nl: [{\"name\": \"first\", \"a\": 1}, {\"name\": \"last\"}]\n"),
        (
            "m: {x: y,}\nl: [ z, ] # c\n",
            "m: {x: y, \"k\": \"v\",}\nl: [ {\"name\": \"first\", \"a\": 1}, z, {\"name\": \"last\"}, ] # c\n",
        ),
        (
            "m:\r\n  x: y\r\nl:\r\n- z\r\n",
            "m:\r\n  x: y\r\n  k: v\r\nl:\r\n- name: first\r\n  a: 1\r\n- z\r\n- name: last\r\n",
        ),
        (
            "---\nl:\n- |\n  text\n\n  more\n\n\nm:\n  x: >-\n    folded\n    # text\n\n# c\n...\n",
            "---\nl:\n- name: first\n  a: 1\n- |\n  text\n\n  more\n- name: last\n\n\nm:\n  x: >-\n    folded\n    # text\n  k: v\n\n# c\n...\n",
        ),
        (
            "l:\n- |+\n  kept\n\n\nm:\n  x: |+\n    kept\n\n",
            "l:\n- name: first\n  a: 1\n- |+\n  kept\n\n\n- name: last\nm:\n  x: |+\n    kept\n\n  k: v\n",
        ),
        (
            "l:\n-\n- \nm:\n  x:\n  y:",
            "l:\n- name: first\n  a: 1\n-\n- \n- name: last\nm:\n  x:\n  y:\n  k: v",
        ),
        (
            "l:\n- # c\n  - - deep\n    - x\n-\n  a: b\n  c:\n  - d\nm:\n  x: 'a\n\n    b'\n",
            "l:\n- name: first\n  a: 1\n- # c\n  - - deep\n    - x\n-\n  a: b\n  c:\n  - d\n- name: last\nm:\n  x: 'a\n\n    b'\n  k: v\n",
        ),
        (
            "l: &l\n  - !!str z\nm: &m !!map\n  \"x\" : &x\n  - y\n",
            "l: &l\n  - name: first\n    a: 1\n  - !!str z\n  - name: last\nm: &m !!map\n  \"x\" : &x\n  - y\n  k: v\n",
        ),
        (
            "{\n  \"l\": [\n    \"z\"\n  ],\n  \"m\": {\n    \"x\": {}\n  }\n}\n",
            "{\n  \"l\": [\n    {\n      \"name\": \"first\",\n      \"a\": 1\n    },\n    \"z\",\n    {\n      \"name\": \"last\"\n    }\n  ],\n  \"m\": {\n    \"x\": {},\n    \"k\": \"v\"\n  }\n}\n",
        ),
        (
            "{\"l\":[],\"m\":{}}",
            "{\"l\":[{\"name\": \"first\", \"a\": 1}, {\"name\": \"last\"}],\"m\":{\"k\": \"v\"}}",
        ),
        (
            "{\n    \"l\": [],\n    \"m\": {}\n}",
            "{\n    \"l\": [\n        {\n            \"name\": \"first\",\n            \"a\": 1\n        },\n        {\n            \"name\": \"last\"\n        }\n    ],\n    \"m\": {\n        \"k\": \"v\"\n    }\n}",
        ),
        (
            "\u{feff}m:\n  x: é # ü\nl:\n- ☃\n",
            "\u{feff}m:\n  x: é # ü\n  k: v\nl:\n- name: first\n  a: 1\n- ☃\n- name: last\n",
        ),
    ] {
        assert_eq!(all(text), expected, "{text}");
    }
}

#[test]
fn an_empty_value_becomes_a_list_and_says_what_it_was() {
    let list = json!([{ "op": "add", "path": "/a/l", "value": ["x"] }]);
    let null = json!([{ "op": "replace", "path": "/a/l", "value": null }]);
    for (text, expected) in [
        ("a:\n  l:\n  b: 1\n", "a:\n  l:\n  # sidelight-injector: was \"\"\n  - x\n  b: 1\n"),
        ("a:\n  l: ~ # c\n  b: 1", "a:\n  l: # c\n  # sidelight-injector: was \" ~\"\n  - x\n  b: 1"),
        ("a:\n  b: 1\n  l:  null", "a:\n  b: 1\n  l:\n  # sidelight-injector: was \"  null\"\n  - x"),
        ("s:\n  - x\na:\n  l: # c", "s:\n  - x\na:\n  l: # c\n    # sidelight-injector: was \"\"\n    - x"),
    ] {
        let found = edited(text, list.clone()).unwrap();
        assert_eq!(found, expected);
        assert_eq!(edited(&found, null.clone()).unwrap(), text);
    }
    assert_eq!(edited("a: {l: null}", list).unwrap(), "a: {l: [\"x\"]}");
}

#[test]
fn what_is_taken_out_leaves_the_rest_as_it_is() {
    let items = |items: &[&str]| {
        let remove = |path: &&str| json!({ "op": "remove", "path": path });
        Value::Array(items.iter().map(remove).collect())
    };
    for (text, paths, expected) in [
        ("l:\n# a\n- a\n# b\n- b:\n    c\n# c\n- c\n", &["/l/1"][..], "l:\n# a\n- a\n# b\n# c\n- c\n"),
        ("l:\n- a\n- b\n- c", &["/l/2", "/l/1"], "l:\n- a"),
        ("m:\n  a: 1\n  b:\n  - x\n", &["/m/b"], "m:\n  a: 1\n"),
        ("l: [a, b, c]", &["/l/2", "/l/0"], "l: [b]"),
        ("l: [a, b, c,]", &["/l/2", "/l/1", "/l/0"], "l: []"),
        ("{\n  \"l\": [\n    1,\n    2\n  ]\n}", &["/l/1"], "{\n  \"l\": [\n    1\n  ]\n}"),
        ("m: {a: 1, b: 2}", &["/m/a"], "m: {b: 2}"),
    ] {
        assert_eq!(edited(text, items(paths)).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn a_text_is_replaced_in_its_own_quotes() {
    let new = json!([{ "op": "replace", "path": "/m/a", "value": "x,y" }]);
    for (text, expected) in [
        ("m:\n  a: x # c\n", "m:\n  a: x,y # c\n"),
        ("m:\n  a: 'x'\n", "m:\n  a: 'x,y'\n"),
        ("m:\n  a: \"x\"", "m:\n  a: \"x,y\""),
        ("m: {a: x}", "m: {a: \"x,y\"}"),
        ("m:\n  a: |-\n    x\n  b: 1\n", "m:\n  a: x,y\n  b: 1\n"),
    ] {
        assert_eq!(edited(text, new.clone()).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn what_places_share_is_written_out_before_one_of_them_changes() {
    for (text, path, expected) in [
        ("a: &a\n  x: 0644\nb: *a # c\n", "/b/k", "a: &a\n  x: 0644\nb: {x: 0644, \"k\": \"v\"} # c\n"),
        ("a: &a\n  x: [1, 'z']\nb: *a\n", "/a/k", "a: &a\n  x: [1, 'z']\n  k: v\nb: {x: [1, \"z\"]}\n"),
        (
            "base: &b {m: {x: yes}}\na:\n  <<: *b\n  y: 1\n",
            "/a/m/k",
            "base: &b {m: {x: yes}}\na:\n  <<: *b\n  y: 1\n  m: {x: yes, \"k\": \"v\"}\n",
        ),
        ("b: &b\n  x: 1\na:\n  <<: *b\n", "/a/k", "b: &b\n  x: 1\na:\n  <<: *b\n  k: v\n"),
        ("b: &b\n  x: 1\na:\n  <<: *b\n", "/b/k", "b: &b\n  x: 1\n  k: v\na:\n  <<: {x: 1}\n"),
    ] {
        assert_eq!(edited(text, add(path, "v")).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn what_cannot_be_changed_safely_is_an_error_and_never_a_wrong_text() {
    for text in [
        "m:\n\tx: y\n",
        "m: [",
        "m: *no\n",
        "a: 1\na: 2\nm:\n  x: y\n",
        "m: &m\n  x: *m\n",
        "m: text\n",
        "m:\n  ? x\n  : y\n",
        "",
    ] {
        assert!(edited(text, add("/m/k", "v")).is_err(), "{text}");
    }
    // Line breaks of thirty years ago: what is added would be YAML, below another key.
    let error = edited("m:\r  x: y\rn:\r     z: w\r", add("/m/k", "v")).unwrap_err();
    assert_eq!(error, "the result would say something else than it should");
}
