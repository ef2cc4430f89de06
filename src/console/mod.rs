//! `rtp_cluster_client`: the administrator's side of the admin socket. One command on the command line, one a line
//! from a file or a pipe, a prompt with history and completion, and what the client does itself: a live view, a test
//! call, and a look at everything. It knows no more of the server than its replies say.

mod batch;
#[cfg(feature = "console")]
mod completion;
pub(crate) mod daemon;
mod doctor;
pub mod options;
pub mod own;
mod prompt;
mod shown;
mod signal_thread;
mod test_call;
mod top;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use daemon::{Daemon, Trouble};
use options::{Action, Options};
use own::{Help, Own};
use shown::shown;
use signal_thread::Restore;

/// How it ended, as scripts see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    /// Every command was answered with `OK`.
    Good,
    /// At least one was answered with `ERROR`.
    Refused,
    /// There is no daemon, or a reply was cut short.
    Lost,
    /// The command line is wrong.
    Usage,
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        Self::from(match ending {
            Ending::Good => 0,
            Ending::Refused => 1,
            Ending::Lost => 2,
            // EX_USAGE of sysexits.h, as the daemon's.
            Ending::Usage => 64,
        })
    }
}

/// The program, with the arguments and streams of the process.
pub fn main() -> ExitCode {
    run().into()
}

fn run() -> Ending {
    let action = match options::parse(std::env::args_os().skip(1)) {
        Ok(action) => action,
        Err(wrong) => {
            complain(&format!("{wrong}\n{}", options::USAGE));
            return Ending::Usage;
        }
    };
    let options = match action {
        Action::Run(options) => options,
        Action::Show(text) => {
            return batch::say(&text).map_or_else(|trouble| lost(&trouble), |()| Ending::Good);
        }
    };
    serve(&options).unwrap_or_else(|trouble| lost(&trouble))
}

fn serve(options: &Options) -> Result<Ending, Trouble> {
    let mut daemon = Daemon::connect(&options.socket, options.timeout)?;
    match &options.command {
        Some(line) => {
            let is_live = own::find(line).is_some_and(|entry| entry.own == Own::Top);
            let _restore = is_live
                .then(|| Restore::on(signal_thread::ENDING))
                .transpose()
                .map_err(Trouble::Streams)?;
            carry_out(&mut daemon, line, options.quiet)
        }
        None if io::stdin().is_terminal() => prompt::run(daemon),
        None => batch::script(&mut daemon, io::stdin().lock(), options.quiet),
    }
}

/// One command, our own or the daemon's.
fn carry_out(daemon: &mut Daemon, line: &str, quiet: bool) -> Result<Ending, Trouble> {
    match own::find(line).map(|entry| entry.own) {
        Some(Own::Top) => return top::run(daemon, line),
        Some(Own::Doctor) => return doctor::run(daemon, line, quiet),
        Some(Own::Test) => return test_call::run(daemon, line, quiet),
        None => {}
    }
    let more: String = match own::help(line) {
        Help::Of(entry) => {
            let end = if quiet { "" } else { "OK\n" };
            return batch::say(&(own::shown(entry) + end)).map(|()| Ending::Good);
        }
        Help::All => own::OWN.iter().map(own::shown).collect(),
        Help::No => String::new(),
    };
    batch::ask(daemon, line, &more, quiet)
}

fn lost(trouble: &Trouble) -> Ending {
    complain(&trouble.to_string());
    Ending::Lost
}

/// Whether the terminal takes text and nothing else.
fn is_dumb_terminal() -> bool {
    std::env::var_os("TERM").is_none_or(|name| name.is_empty() || name == "dumb")
}

/// One message on standard error; where that is closed there is nobody to tell.
fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "rtp_cluster_client: {}", shown(message));
}
