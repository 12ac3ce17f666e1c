//! What Helm proposes to type after an installation.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::release::Release;
use crate::real_kubernetes::stage::name;

/// Types all commands in the notes of an installation; those about a pod are asked about this one, which is collected.
pub(super) fn type_all(release: &Release, namespace: &str, pod: &str) {
    let agents = release.pods("agent");
    let expected = [
        ("rollout status daemonset/sidelight-agent", "successfully rolled out"),
        ("exec daemonset/sidelight-agent -- sidelight outputs", " up "),
        ("exec POD -- sidelight explain NAMESPACE/POD", ": collected"),
        ("port-forward daemonset/sidelight-agent 9615", "Forwarding from 127.0.0.1:9615"),
        ("helm test sidelight -n sidelight", "Phase:          Succeeded"),
    ];
    let commands = release.noted_commands();
    assert_eq!(commands.len(), expected.len(), "{commands:?}");
    for (command, (end, answer)) in commands.iter().zip(expected) {
        assert!(command.ends_with(end), "{command} is not {end}");
        let of_this_pod = command.replace("NAMESPACE/POD", &format!("{namespace}/{pod}"));
        assert_answers(release, &of_this_pod.replace("POD", name(&agents[0])), answer);
    }
}

/// Runs a command until it has printed this; one of them would not end.
fn assert_answers(release: &Release, command: &str, answer: &str) {
    let mut words = command.split_whitespace();
    let program = words.next().unwrap();
    let mut child = release.command(program).args(words).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut told = Vec::new();
    let is_answered = lines.any(|line| {
        let is_answer = line.contains(answer);
        told.push(line);
        is_answer
    });
    let _ = child.kill();
    child.wait().unwrap();
    assert!(is_answered, "{command}: {}", told.join("\n"));
}
