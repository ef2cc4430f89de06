//! One command from the command line, or one a line from a file or a pipe: replies go to standard output as they
//! come.

use std::io::{self, BufRead, ErrorKind, IsTerminal as _, Read as _, Write as _};

use super::Ending;
use super::daemon::{Daemon, Trouble};
use super::shown::shown;
use crate::admin::commands::{self, Kind};
use crate::admin::lines::LINE_MAX;

/// Runs each line of `input`, also after one that was refused. Blank lines and comments are passed over.
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
        if is_no_command(command) {
            continue;
        }
        if is_quit(command) {
            return Ok(worst);
        }
        worst = worst.max(super::carry_out(
            daemon,
            &String::from_utf8_lossy(command),
            quiet,
        )?);
    }
}

/// Whether a line asks for nothing: it is blank, or a comment.
pub(super) fn is_no_command(line: &[u8]) -> bool {
    matches!(line.first(), None | Some(b'#'))
}

/// Whether the command is one of those that end a conversation.
pub(super) fn is_quit(command: &[u8]) -> bool {
    str::from_utf8(command).is_ok_and(|word| commands::forms(word).any(|entry| entry.kind == Kind::Quit))
}

/// Asks the daemon one command and prints the reply, with `more` before its last line.
pub(super) fn ask(daemon: &mut Daemon, command: &str, more: &str, quiet: bool) -> Result<Ending, Trouble> {
    let good = daemon.ask(command.as_bytes(), |line, is_last| {
        if is_last {
            print(more.as_bytes())?;
        }
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

/// A terminal gets nothing that it would act upon, a program every byte.
fn print(bytes: &[u8]) -> Result<(), Trouble> {
    let mut out = io::stdout();
    tolerate(if out.is_terminal() {
        out.write_all(shown(&String::from_utf8_lossy(bytes)).as_bytes())
    } else {
        out.write_all(bytes)
    })
}

/// A reader that has seen enough (`| head`) is no failure: the reply is read to its end for the exit status.
fn tolerate(result: io::Result<()>) -> Result<(), Trouble> {
    match result {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Trouble::Streams(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::sync::Arc;

    use super::*;
    use crate::admin::admin_thread::{self, AdminDoor};
    use crate::admin::fake::{Fake, Place};

    /// How `input` ends as a script, and what it has changed.
    fn run(input: &[u8]) -> (Result<Ending, String>, Vec<String>) {
        let place = Place::new();
        let listener = UnixListener::bind(place.path("admin")).unwrap();
        let fake = Arc::new(Fake::of_the_manual());
        let doors = vec![AdminDoor {
            listener,
            read_only: false,
        }];
        let handle = admin_thread::start(doors, Arc::<Fake>::clone(&fake)).unwrap();
        let mut daemon = Daemon::connect(&place.path("admin"), None).unwrap();
        let ending = script(&mut daemon, input, true).map_err(|trouble| trouble.to_string());
        handle.stop();
        let changes = fake.changes.lock().clone();
        (ending, changes)
    }

    #[test]
    fn a_script_goes_on_after_an_error_and_tells_of_it_at_the_end() {
        let good = b"# away\nmodify Supercluster#1 suspend RTPPROXY1\r\n\n  # and\n  \nmodify Supercluster#1 resume RTPPROXY1";
        let changes = vec!["suspend RTPPROXY1".to_owned(), "resume RTPPROXY1".to_owned()];
        assert_eq!(run(good), (Ok(Ending::Good), changes));
        let bad = b"modify Supercluster#1 suspend X\nmodify Supercluster#1 suspend RTPPROXY1\n";
        assert_eq!(
            run(bad),
            (Ok(Ending::Refused), vec!["suspend RTPPROXY1".to_owned()])
        );
    }

    #[test]
    fn a_quit_ends_a_script() {
        let script =
            b"modify Supercluster#1 suspend RTPPROXY1\nQUIT\nmodify Supercluster#1 resume RTPPROXY1\n";
        assert_eq!(
            run(script),
            (Ok(Ending::Good), vec!["suspend RTPPROXY1".to_owned()])
        );
        assert_eq!(run(b""), (Ok(Ending::Good), vec![]));
    }

    #[test]
    fn a_line_without_bound_is_not_read() {
        let (ending, changes) = run(&vec![b'x'; 1 << 20]);
        assert_eq!(
            ending,
            Err("a line of standard input is longer than 65536 bytes".to_owned())
        );
        assert!(changes.is_empty());
    }
}
