//! `rtp_cluster_client`: the administrator's side of the admin socket. One command on the command line, one a line
//! from a file or a pipe, a prompt with history and completion, or a live view. It knows no more of the server than
//! its replies say.

mod batch;
#[cfg(feature = "console")]
mod completion;
pub(crate) mod daemon;
pub mod options;
mod prompt;
mod top;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use daemon::{Daemon, Trouble};
use options::{Action, Options};

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
        Some(words) if top::is_asked(words) => top::run(&mut daemon, words),
        Some(line) => batch::one(&mut daemon, line, options.quiet),
        None if io::stdin().is_terminal() => prompt::run(daemon),
        None => batch::script(&mut daemon, io::stdin().lock(), options.quiet),
    }
}

fn lost(trouble: &Trouble) -> Ending {
    complain(&trouble.to_string());
    Ending::Lost
}

/// One message on standard error; where that is closed there is nobody to tell.
fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "rtp_cluster_client: {message}");
}
