//! From the command line to a serving daemon and back: everything that can fail is tried, in an order in which each
//! step may still be refused on the caller's terminal, before anybody is told that we serve.

use std::io;
use std::panic;
use std::process;
use std::sync::Arc;

use super::ending_thread::{Ending, Endings};
use super::logfile::Log;
use super::options::{LogTarget, Options};
use super::pidfile::PidFile;
use super::privileges::{self, Identity};
use super::ready::{self, Caller, Side};
use super::signal_thread::{self, Signals};
use super::syslog::{PLACES, Syslog};
use super::{Service, StartError};
use crate::config::{self, Parsed};
use crate::rim::sys;
use crate::sockets::Sockets;
use crate::sockets::handover::Predecessor;
use crate::sockets::systemd::{self, Given, Systemd};

/// File descriptors that are asked for: more than the connections that are served at most. The hard limit stays.
const DESCRIPTORS: u64 = 65_536;
/// Exit status for a configuration that is refused.
const REFUSED: u8 = 78;

/// `-d`: prints every fault of the configuration, opens nothing else.
pub(super) fn check(options: &Options) -> u8 {
    match config::load(&options.config) {
        Ok((Parsed { config, warnings }, _)) => {
            ready::print(&warnings.iter().map(ToString::to_string).collect::<Vec<_>>());
            let members: usize = config.clusters.iter().map(|cluster| cluster.members.len()).sum();
            let found = format!("{} clusters, {members} RTP proxies", config.clusters.len());
            super::say(&format!("{}: no faults: {found}\n", options.config.display()));
            0
        }
        Err(faults) => {
            ready::print(&[faults.to_string()]);
            REFUSED
        }
    }
}

/// Serves until a signal ends it; the exit status.
pub(super) fn run<S: Service>(options: Options) -> u8 {
    let given = if options.foreground {
        systemd::given()
    } else {
        sys::close_inherited();
        Vec::new()
    };
    // Before the fork, as the caller would do it: a configuration is found from where the caller is.
    let (parsed, contents) = match config::load(&options.config) {
        Ok(loaded) => loaded,
        Err(faults) => {
            ready::print(&[faults.to_string()]);
            return REFUSED;
        }
    };
    if !options.foreground {
        // In the foreground the log says it, on the same terminal.
        ready::print(
            &parsed
                .warnings
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
        );
    }
    let here = std::env::current_dir();
    let options = match options.absolute(here.as_deref().ok()) {
        Ok(options) => options,
        Err(path) => {
            let why = here.err().map(|error| format!(": {error}")).unwrap_or_default();
            ready::print(&[format!(
                "{}: want an absolute path: there is no current directory{why}",
                path.display()
            )]);
            return 1;
        }
    };
    if options.foreground {
        return serve::<S>(parsed, contents, &options, given, Caller::Terminal);
    }
    match ready::detach(&options.log_file) {
        Side::Parent(exit) => exit,
        Side::Daemon(caller) => serve::<S>(parsed, contents, &options, given, caller),
    }
}

/// The whole life of the process that serves.
fn serve<S: Service>(
    parsed: Parsed,
    contents: Vec<u8>,
    options: &Options,
    given: Vec<Given>,
    caller: Caller,
) -> u8 {
    let Daemon {
        service,
        mut signals,
        ending,
        log,
        systemd,
        sockets,
        pid_file,
        notes,
    } = match start::<S>(parsed, contents, options, given) {
        Ok(daemon) => daemon,
        Err(error) => return caller.failed(&error),
    };
    systemd.ready();
    let pid = process::id();
    let version = env!("CARGO_PKG_VERSION");
    log::info!(version, pid; "rtp_cluster {version} serves, pid {pid}");
    caller.ready(&notes);
    signal_thread::run(&service, |at_most| signals.wait(at_most), &log, &systemd);
    systemd.stopping();
    sockets.leave();
    service.stop();
    ending.stop();
    if sockets.pid_file_is_given_away() {
        pid_file.give_away();
    }
    drop(pid_file);
    log::info!(pid; "rtp_cluster stopped, pid {pid}");
    0
}

/// What a started daemon holds; `pid_file` is dropped last, so that nobody starts while we still stop.
struct Daemon<S> {
    service: S,
    signals: Signals,
    ending: Ending,
    log: Log,
    systemd: Arc<Systemd>,
    sockets: Arc<Sockets>,
    pid_file: Arc<PidFile>,
    /// For the caller's terminal.
    notes: Vec<String>,
}

/// Opens everything, in this order: what needs the super-user before the privileges go, threads only afterwards,
/// since credentials, like the fork before, are changed safely only in a process of one thread.
fn start<S: Service>(
    parsed: Parsed,
    contents: Vec<u8>,
    options: &Options,
    given: Vec<Given>,
) -> Result<Daemon<S>, StartError> {
    let failed = |message: String| StartError::new(1, message);
    let identity = Identity::of(options).map_err(failed)?;
    let owner = identity.as_ref().map(Identity::numbers);
    if let Some(identity) = &identity {
        let places = privileges::places(options, &parsed.config);
        identity
            .check(&options.config, &places)
            .map_err(|messages| StartError { exit: 1, messages })?;
    }
    raise_descriptors();
    let (log, note) = open_log(options, identity.as_ref()).map_err(failed)?;
    let mut predecessor = if options.takeover {
        Some(ask_predecessor(options).map_err(failed)?)
    } else {
        None
    };
    let inherited = predecessor
        .as_mut()
        .and_then(|daemon| PidFile::inherit(&options.pid_file, daemon.pid_file.take()?));
    let has_its_file = inherited.is_some();
    // Another instance is found before its log hears of us.
    let pid_file = match inherited {
        Some(file) => file,
        None => PidFile::take(&options.pid_file, owner)
            .map_err(|error| StartError::new(error.exit(), error.to_string()))?,
    };
    let (endings, signals) = Endings::register()
        .and_then(|endings| {
            // A file at the limit of its size is an error of the write, and no reason to die.
            signal_hook::flag::register(libc::SIGXFSZ, Arc::default())?;
            Ok((endings, Signals::register()?))
        })
        .map_err(|error| failed(format!("cannot handle signals: {error}")))?;
    log.install(options.verbosity, options.log_format);
    abort_on_panic();
    parsed.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    let systemd = Arc::new(Systemd::from_environment());
    let sockets = Arc::new(Sockets::new(&systemd, given));
    if let Some(daemon) = &mut predecessor {
        sockets.inherit(core::mem::take(&mut daemon.sockets));
    }
    let mut service = S::bind(parsed, contents, options, &sockets)?;
    if let Some(identity) = &identity {
        identity.assume().map_err(failed)?;
    }
    let no_thread = |error| failed(format!("cannot start a thread: {error}"));
    let pid_file = Arc::new(pid_file);
    let ours = (Arc::clone(&sockets), Arc::clone(&pid_file));
    let ending = Ending::start(endings, move || {
        ours.0.remove_files();
        if !ours.0.pid_file_is_given_away() {
            ours.1.remove();
        }
    })
    .map_err(no_thread)?;
    service.start().map_err(no_thread)?;
    let pid = predecessor.as_ref().map(|daemon| daemon.pid);
    if let Some(mut daemon) = predecessor {
        daemon
            .ready(has_its_file)
            .map_err(|error| failed(takeover_failed(options, &error)))?;
        if options.state_dir.is_some() {
            daemon.wait_left();
        }
    }
    service.serve();
    if let Some(pid) = pid {
        log::info!(predecessor = pid; "took over from process {pid}, which answers what is in flight and leaves");
        if let Err(error) = pid_file.fill(owner) {
            log::error!("{}: cannot write our pid: {error}", options.pid_file.display());
        }
    }
    match pid_file.share() {
        Ok(file) => sockets.share_pid_file(file),
        Err(error) => log::warn!("the pid file cannot be handed over later: {error}"),
    }
    sockets.serve();
    Ok(Daemon {
        service,
        signals,
        ending,
        log,
        systemd,
        sockets,
        pid_file,
        notes: note.into_iter().collect(),
    })
}

/// Everything of the daemon that runs, with which it goes on until we serve.
fn ask_predecessor(options: &Options) -> Result<Predecessor, String> {
    Predecessor::ask(&options.admin_socket).map_err(|error| takeover_failed(options, &error))
}

fn takeover_failed(options: &Options, error: &io::Error) -> String {
    let socket = options.admin_socket.display();
    let stays = format!("{socket}: cannot take over from the daemon there, which goes on: {error}");
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => format!(
            "{socket}: no daemon is there to take over from: {error}; start this one without -T, or name its -s"
        ),
        io::ErrorKind::InvalidData => {
            format!("{stays}; it may be a version without takeover: stop it, and start this one")
        }
        _ => stays,
    }
}

/// The log, and what is to be told of it.
fn open_log(options: &Options, user: Option<&Identity>) -> Result<(Log, Option<String>), String> {
    if options.foreground {
        return Ok((Log::to_stderr(), None));
    }
    match &options.log_file {
        LogTarget::File(path) => match Log::to_file(path, user) {
            Ok(log) => Ok((log, None)),
            Err(error) => Err(format!(
                "{}: cannot open the log: {error}; choose another with -L",
                path.display()
            )),
        },
        LogTarget::Syslog(facility) => {
            let mut syslog = Syslog::new(*facility);
            // It may be started after us, and is then found by the next line.
            let note = syslog.connect().err().map(|error| {
                let places = PLACES.join(", ");
                format!("no syslog at {places} ({error}): what is logged is lost until there is one")
            });
            Ok((Log::to_syslog(syslog), note))
        }
    }
}

/// Raises the soft limit of file descriptors towards the hard one. Where it is low we serve fewer connections.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(DESCRIPTORS, |hard| hard.min(DESCRIPTORS));
    if limit.current.is_some_and(|soft| soft < wanted) {
        // Lowering nothing and staying under the hard limit, it is refused only in a sandbox.
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(wanted),
                maximum: limit.maximum,
            },
        );
    }
}

/// A thread that panics takes the process with it, with a reason in the log: nobody restarts half a daemon.
fn abort_on_panic() {
    panic::set_hook(Box::new(|what| {
        let thread = std::thread::current();
        let place = what
            .location()
            .map(|at| format!(" at {}:{}", at.file(), at.line()))
            .unwrap_or_default();
        let payload = what.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let reason = text
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no reason");
        log::error!(
            "thread {} panicked{place}: {reason}; aborting",
            thread.name().unwrap_or("without a name")
        );
        process::abort();
    }));
}

/// Descriptors 0, 1 and 2 exist from here on, so that no socket ever lands where something prints.
pub(super) fn open_standard_streams() -> io::Result<()> {
    use std::os::fd::{AsRawFd, IntoRawFd};
    loop {
        let null = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/null")?;
        if null.as_raw_fd() > 2 {
            return Ok(());
        }
        // Stays open for as long as we live.
        let _ = null.into_raw_fd();
    }
}
