//! One command from the command line, or one a line from a file or a pipe: replies go to standard output as they
//! come.

use std::io::{self, BufRead, ErrorKind, Read as _, Write as _};

use super::Ending;
use super::daemon::{Daemon, Trouble};
use crate::admin::commands::{self, Kind};
use crate::admin::lines::LINE_MAX;

/// Runs one command.
pub(super) fn one(daemon: &mut Daemon, line: &str, quiet: bool) -> Result<Ending, Trouble> {
    ask(daemon, line.as_bytes(), quiet)
}

/// Runs each line of `input`, also after one that was refused. Blank lines are passed over.
pub(super) fn script(daemon: &mut Daemon, mut input: impl BufRead, quiet: bool) -> Result<Ending, Trouble> {
    let mut worst = Ending::Good;
    let mut line = Vec::new();
    loop {
        line.clear();
        let room = u64::try_from(LINE_MAX + 2).unwrap_or(u64::MAX);
        (&mut input)
            .take(room)
            .read_until(b'\n', &mut line)
            .map_err(Trouble::Streams)?;
        if line.is_empty() {
            return Ok(worst);
        }
        if line.last() != Some(&b'\n') && line.len() > LINE_MAX {
            let error = format!("a line of standard input is longer than {LINE_MAX} bytes");
            return Err(Trouble::Streams(io::Error::new(ErrorKind::InvalidInput, error)));
        }
        let command = line.trim_ascii();
        if command.is_empty() {
            continue;
        }
        if is_quit(command) {
            return Ok(worst);
        }
        worst = worst.max(ask(daemon, command, quiet)?);
    }
}

/// Whether the command is one of those that end a conversation.
pub(super) fn is_quit(command: &[u8]) -> bool {
    str::from_utf8(command).is_ok_and(|word| commands::forms(word).any(|entry| entry.kind == Kind::Quit))
}

fn ask(daemon: &mut Daemon, command: &[u8], quiet: bool) -> Result<Ending, Trouble> {
    let good = daemon.ask(command, |line, is_last| {
        let is_wanted = !(quiet && is_last && line == b"OK\n");
        if is_wanted { print(line) } else { Ok(()) }
    });
    let flushed = tolerate(io::stdout().flush());
    let ending = if good? { Ending::Good } else { Ending::Refused };
    flushed.map(|()| ending)
}

/// Prints one text to standard output.
pub(super) fn say(text: &str) -> Result<(), Trouble> {
    print(text.as_bytes())?;
    tolerate(io::stdout().flush())
}

fn print(bytes: &[u8]) -> Result<(), Trouble> {
    tolerate(io::stdout().write_all(bytes))
}

/// A reader that has seen enough (`| head`) is no failure: the reply is read to its end for the exit status.
fn tolerate(result: io::Result<()>) -> Result<(), Trouble> {
    match result {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Trouble::Streams(error)),
        _ => Ok(()),
    }
}
