//! The process around the service: command line, background, log, pid file, privileges, signals, service manager.
//! It knows nothing of RTPproxy; what it runs is a [`Service`].

mod ending_thread;
pub mod flags;
mod logfile;
pub mod options;
mod pidfile;
mod privileges;
mod ready;
mod record;
pub mod rights;
mod signal_thread;
mod start;
mod syslog;

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use crate::config::Parsed;
use crate::sockets::Sockets;
use crate::sockets::listener::BindError;
use options::{Asked, Options};

/// Exit status for a command line that makes no sense (`EX_USAGE` of sysexits.h).
const USAGE: u8 = 64;

/// What the daemon runs. Its calls come in this order, all from the main thread.
pub trait Service: Sized {
    /// Binds every socket, by `sockets`. It runs with the rights of whoever started us, starts no thread, and undoes what it did
    /// when it fails.
    ///
    /// # Errors
    /// Told on the terminal of the caller, whose exit status it becomes.
    fn bind(
        config: Parsed,
        contents: Vec<u8>,
        options: &Options,
        sockets: &Arc<Sockets>,
    ) -> Result<Self, StartError>;

    /// Starts the threads, after the privileges are gone. No command is taken yet.
    ///
    /// # Errors
    /// When the system has no more threads to give.
    fn start(&mut self) -> io::Result<()>;

    /// Takes commands from now on. A predecessor, if there is one, has left, or will not be waited for any longer.
    fn serve(&self);

    /// Reads the configuration anew, at most once a second; `Ok` says what was loaded.
    ///
    /// # Errors
    /// All faults of the file, a line each; then nothing has changed.
    fn reload(&self) -> Result<String, String>;

    /// What goes on, in several lines, for the log.
    fn dump(&self) -> String;

    /// Stops accepting, answers what is in flight (2 s at most), removes the sockets, and joins the threads.
    fn stop(self);
}

/// Why the daemon does not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartError {
    /// The exit status: 75 when another instance lives, 78 for a refused configuration, else 1.
    pub exit: u8,
    /// What the caller is told; each may have several lines.
    pub messages: Vec<String>,
}

impl StartError {
    /// One reason.
    pub fn new(exit: u8, message: String) -> Self {
        Self {
            exit,
            messages: vec![message],
        }
    }
}

impl From<BindError> for StartError {
    fn from(error: BindError) -> Self {
        Self::new(error.exit(), error.to_string())
    }
}

/// The program `rtp_cluster`, serving `S`.
pub fn main<S: Service>() -> ExitCode {
    if let Err(error) = start::open_standard_streams() {
        ready::print(&[format!("/dev/null: {error}")]);
        return ExitCode::FAILURE;
    }
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    let exit = match options::parse(&args) {
        Ok(Asked::Run(options)) => start::run::<S>(options),
        Ok(Asked::Check(options)) => start::check(&options),
        Ok(Asked::Help(text) | Asked::Version(text)) => {
            say(&text);
            0
        }
        Err(error) => wrong_usage(&error.to_string()),
    };
    ExitCode::from(exit)
}

fn wrong_usage(message: &str) -> u8 {
    ready::print(&[message.to_owned(), "try rtp_cluster --help".to_owned()]);
    USAGE
}

/// Prints what the user asked for; a closed standard output is no reason to fail.
fn say(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}
