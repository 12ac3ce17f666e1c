//! Lines that are long, torn, or no text at all.

use sidelight_tests::agent::Agent;
use sidelight_tests::eventually;
use sidelight_tests::fault::Fault;
use sidelight_tests::forward_server::ForwardServer;
use sidelight_tests::kubelet::{MAX_LINE, Node};

use crate::{BINARY, config, start};

/// Scenario: lines of 16 KiB, one byte more, and 1 MiB, cut by the runtime and in one piece, with `max_record` above.
/// Guarantee: each arrives once and whole.
#[test]
fn long_lines_below_the_limit_arrive_whole() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("lines: 16 KiB and 1 MiB, below max_record");
    let config = config(&node, &server, "  max_record: 2MiB\n", "      ack_timeout: 10m\n");
    let agent = fault.watch(Agent::start(BINARY, node.path(), &config));
    let (mut cut, mut whole) = (node.container("cut"), node.container("whole"));
    for bytes in [MAX_LINE - 1, MAX_LINE, MAX_LINE + 1, 2 * MAX_LINE, 1 << 20, 100] {
        cut.lines(3, bytes);
        for _ in 0..3 {
            let text = whole.numbered(bytes);
            whole.piece("stdout", false, text.as_bytes());
        }
    }
    eventually("all lines", || server.count("cut") == cut.next && server.count("whole") == whole.next);
    let sent = [(&server, "cut", cut.next), (&server, "whole", whole.next)];
    assert_eq!(fault.survived(&agent, &sent), 0);
}

/// Scenario: lines of 10 MiB, cut by the runtime and in one piece, between short ones; the limit is the default, 512 KiB.
/// Guarantee: each arrives once, cut at the limit; every byte beyond is counted as truncated, and none else.
#[test]
fn lines_beyond_the_limit_are_cut_and_each_byte_beyond_is_counted() {
    const LINE: usize = 10 << 20;
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("lines: 10 MiB, max_record 512 KiB");
    let config = config(&node, &server, "", "      ack_timeout: 10m\n");
    let agent = fault.watch(Agent::start(BINARY, node.path(), &config));
    let mut log = node.container("a");
    for number in 0..6 {
        let text = format!("seq=a:{number} {}", "x".repeat(LINE - 8));
        match number {
            0 | 3 => log.line("stdout", &text),
            1 | 4 => log.piece("stdout", false, text.as_bytes()),
            _ => log.line("stdout", &text[..100]),
        }
    }
    eventually("all lines", || server.count("a") == 6);
    let row = fault.survived_with_losses(&agent, &[(&server, "a", 6)]);
    assert_eq!((row.tally.delivered, row.tally.repeated), (6, 0));
    let lengths: Vec<usize> = server.texts().iter().map(String::len).collect();
    assert_eq!(lengths, [512 << 10, 512 << 10, 100].repeat(2));
    // What a head takes is no content, and a line in one piece is read in a window with room for one.
    let beyond = 4 * (LINE - (512 << 10)) as u64;
    assert!(
        (beyond..beyond + 4 * 1_024).contains(&row.dropped("truncated"))
            || row.dropped("truncated") == beyond,
        "{row:?}"
    );
    assert_eq!(row.dropped.len(), 1, "{row:?}");
}

/// Scenario: bytes that are not UTF-8, NUL bytes, a line without a head, one cut inside its head, lines of nothing, a
/// stretch of NUL bytes as a crashed file system leaves it; numbered lines between all of them.
/// Guarantee: each arrives as a record, marked where bytes were replaced; the numbered ones are whole; nothing stops.
#[test]
fn what_is_no_text_arrives_and_damages_nothing_else() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("lines: invalid UTF-8, NUL bytes, torn and empty lines");
    let agent = fault.watch(start(&node, &server));
    let mut log = node.container("a");
    let mut odd: Vec<Vec<u8>> = vec![
        b"torn line without a head\n".to_vec(),
        b"2026-11-24T10:00:00Z std\n".to_vec(),
        b"\n\n".to_vec(),
        vec![0; 5_000],
        b"2026-11-24T10:00:00Z stdout F \n".to_vec(),
        b"2026-11-24T10:00:00Z stdout F a\xff\xfe\x00b\xc3\n".to_vec(),
        b"2026-11-24T10:00:00Z stdout X neither F nor P\n".to_vec(),
        b"9999999999-99-99T99:99:99Z stdout F no such time\n".to_vec(),
        b"\xef\xbb\xbf2026-11-24T10:00:00Z stdout F behind a byte order mark\n".to_vec(),
        b"2026-11-24T10:00:00Z stdout F carriage return\r\n".to_vec(),
    ];
    // The stretch of NUL bytes has no newline of its own: what follows it is on its line.
    odd[3].push(b'\n');
    for bytes in &odd {
        log.lines(20, 100);
        log.raw(bytes);
        log.lines(20, 20_000);
    }
    eventually("all lines", || server.count("a") == log.next);
    assert_eq!(fault.survived(&agent, &[(&server, "a", log.next)]), 0);
    let texts = server.texts();
    for text in
        ["torn line without a head", "a\u{fffd}\u{fffd}\u{0}b\u{fffd}", "no such time", "carriage return"]
    {
        assert!(texts.iter().any(|arrived| arrived.contains(text)), "{text:?}");
    }
    assert!(texts.contains(&"\0".repeat(5_000)));
}

/// Scenario: the container runtime dies inside a line, inside a partial one, and the container restarts with a new file.
/// Guarantee: what was written of the line arrives; the new file's lines are whole.
#[test]
fn a_line_torn_by_a_crash_arrives_and_the_next_file_is_whole() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("lines: torn by a crash of the runtime");
    let agent = fault.watch(start(&node, &server));
    let mut log = node.container("a");
    log.lines(10, 100);
    log.piece("stdout", true, b"seq=part:0 begun ");
    log.raw(b"2026-11-24T10:00:00Z stdout F seq=torn:0 only ha");
    log.restart();
    log.lines(10, 100);
    eventually("all lines", || server.count("a") == log.next);
    eventually("what was begun", || server.count("part") == 1 && server.count("torn") == 1);
    let sent = [(&server, "a", log.next), (&server, "part", 1), (&server, "torn", 1)];
    assert_eq!(fault.survived(&agent, &sent), 0);
}
