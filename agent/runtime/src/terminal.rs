//! What a command says to whoever has typed it.

use std::io::Write;

use crate::exit;

/// To the operator, on standard error.
#[allow(clippy::print_stderr, reason = "this is the command line's voice")]
pub fn say(text: &str) {
    eprintln!("{text}");
}

/// To standard output; a reader that has gone away ends the program in peace. Gives the exit code.
pub fn print(text: &str) -> u8 {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => exit::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => exit::SUCCESS,
        Err(_) => exit::NEGATIVE,
    }
}

/// All mistakes of a configuration, one a line. Gives the exit code.
pub fn complain(mistakes: &[String]) -> u8 {
    for mistake in mistakes {
        say(mistake);
    }
    let count = mistakes.len();
    say(&format!("{count} mistake{}", if count == 1 { "" } else { "s" }));
    exit::USAGE
}
