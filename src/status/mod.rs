//! `rtp_cluster_status`: the status page, metrics and JSON of a running daemon over HTTP, by a process of its own, so that
//! no web request is served by the one that calls wait for. It reads one admin socket, best the one that only reads, and
//! changes nothing.
//!
//! One thread samples the daemon ([`sampler_thread`]), a few answer ([`http_thread`]), each from the newest sample: how
//! many look at the page is nothing to the daemon. The rest is pure.
//!
//! The parser of the request's head is `httparse`: what attackers send to port 9433 is read by what hyper reads it with,
//! which has no dependencies and does not allocate. A server crate would bring threads and bounds that are not ours.

mod document;
#[cfg(test)]
mod fake;
pub mod flags;
mod history;
pub mod http;
pub mod http_thread;
mod judge;
mod metrics;
mod process;
mod routes;
mod sampler_thread;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;

use crossbeam_channel::bounded;
use env_logger::Env;
use parking_lot::Mutex;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use socket2::Socket;

use crate::rim;
use crate::sockets::listener::{BindError, Rights, SocketFile, bind_tcp, bind_unix};
use flags::{Asked, Listen, Options};
use history::History;
pub use history::{CHANGES_MAX, PASTS_MAX, STEP};
use http::{Request, Response};
use routes::Newest;
pub use routes::SHOWN_MAX;

/// Exit status for a command line that makes no sense (`EX_USAGE` of sysexits.h).
const USAGE: u8 = 64;

/// What the threads share. Of the two locks none is taken while the other one is held, and none over I/O.
struct State {
    newest: Mutex<Arc<Newest>>,
    history: Mutex<History>,
}

impl State {
    fn new() -> Self {
        let newest = Newest {
            at: 0.0,
            daemon: Err("the daemon was not asked yet".to_owned()),
            pause: 1.0,
        };
        Self {
            newest: Mutex::new(Arc::new(newest)),
            history: Mutex::default(),
        }
    }

    fn answer(&self, request: &Request) -> Response {
        let newest = Arc::clone(&self.newest.lock());
        let history = self.history.lock();
        routes::answer(request, &newest, &history, process::own)
    }
}

/// The program, with the arguments of the process.
pub fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    match flags::parse(&words) {
        Err(wrong) => {
            complain(&format!("{wrong}\ntry rtp_cluster_status --help"));
            ExitCode::from(USAGE)
        }
        Ok(Asked::Show(text)) => {
            // A closed standard output is no reason to fail.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Ok(Asked::Run(options)) => match run(options) {
            Ok(()) => ExitCode::SUCCESS,
            Err((exit, why)) => {
                complain(&why);
                ExitCode::from(exit)
            }
        },
    }
}

/// Serves until SIGTERM or SIGINT.
fn run(options: Options) -> Result<(), (u8, String)> {
    env_logger::Builder::from_env(Env::default().default_filter_or("info"))
        .format_target(false)
        .init();
    let failed = |what: &'static str| move |error: io::Error| (1, format!("{what}: {error}"));
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(failed("signals"))?;
    let (listener, file) = bind(&options).map_err(|error| (error.exit(), error.to_string()))?;
    let listener = Arc::new(listener);
    let state = Arc::new(State::new());
    let (stop, stopped) = bounded::<()>(0);

    let mut threads = Vec::new();
    let (socket, shared, end) = (options.socket, Arc::clone(&state), stopped.clone());
    let sample = move || sampler_thread::run(socket, &shared, &end);
    threads.push(rim::spawn("sampler", sample).map_err(failed("thread"))?);
    for number in 0..http_thread::WORKERS {
        let (listener, shared, end) = (Arc::clone(&listener), Arc::clone(&state), stopped.clone());
        let serve = move || http_thread::run(&listener, &shared, &end);
        threads.push(rim::spawn(format!("http-{number}"), serve).map_err(failed("thread"))?);
    }
    match &options.listen {
        Listen::Net(address) => {
            // Port 0 was asked for by who wants to be told which.
            let address = listener
                .local_addr()
                .ok()
                .and_then(|bound| bound.as_socket())
                .unwrap_or(*address);
            log::info!("serving http://{address}/");
        }
        Listen::Path(path) => log::info!("serving HTTP on {}", path.display()),
    }

    signals.forever().next();
    log::info!("stopping");
    drop(stop);
    // Wakes who waits for a client.
    let _ = listener.shutdown(Shutdown::Both);
    threads.into_iter().for_each(rim::Thread::join);
    drop(file);
    Ok(())
}

fn bind(options: &Options) -> Result<(Socket, Option<SocketFile>), BindError> {
    match &options.listen {
        Listen::Net(address) => Ok((bind_tcp(*address)?.into(), None)),
        Listen::Path(path) => {
            let rights = Rights {
                uid: None,
                gid: None,
                mode: options.mode,
            };
            let bound = bind_unix(path, &rights)?;
            Ok((Socket::from(OwnedFd::from(bound.listener)), Some(bound.file)))
        }
    }
}

/// One message on standard error; where that is closed there is nobody to tell.
fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "rtp_cluster_status: {message}");
}
