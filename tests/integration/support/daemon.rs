//! The daemon under test: started in a directory of its own, spoken to over its sockets, killed with the test.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::place::Place;
use super::process::Process;
use super::wait::{self, LONG};

/// A running `rtp_cluster -f`.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    files: Files,
    /// What it was started with, for a restart.
    arguments: Vec<String>,
    /// What is not there as it is for us.
    apart: Option<Apart>,
}

/// Where the daemon's files are. The first cluster of [`config`] listens on `control`.
#[derive(Debug, Clone)]
pub struct Files {
    /// `-c`
    pub config: PathBuf,
    /// `-s`
    pub admin: PathBuf,
    /// `-P`
    pub pid: PathBuf,
    /// Standard error.
    pub log: PathBuf,
    /// Control socket of the first cluster.
    pub control: PathBuf,
}

impl Files {
    /// The usual names in `place`.
    pub fn in_place(place: &Place) -> Self {
        Self {
            config: place.path("rtp_cluster.xml"),
            admin: place.path("admin.sock"),
            pid: place.path("pid"),
            log: place.path("log"),
            control: place.path("c1.sock"),
        }
    }
}

/// One member for [`config`].
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// `UDP`, `UNIX`, …
    pub protocol: &'static str,
    /// As the configuration writes it.
    pub address: String,
    /// Its weight.
    pub weight: u16,
    /// Its capacity.
    pub capacity: u32,
    /// Further elements, as they are.
    pub extra: String,
}

impl Listed {
    /// A UDP member of weight 100 and a capacity that no test reaches.
    pub fn udp(name: &str, address: &str) -> Self {
        Self {
            name: name.to_owned(),
            protocol: "UDP",
            address: address.to_string(),
            weight: 100,
            capacity: 1_000_000,
            extra: String::new(),
        }
    }

    /// The same, with our commands to it leaving from `source`.
    pub fn from(self, source: IpAddr) -> Self {
        Self {
            extra: format!("<cmd_out_address>{source}</cmd_out_address>"),
            ..self
        }
    }

    /// The same with further elements.
    pub fn with(self, extra: &str) -> Self {
        Self {
            extra: extra.to_owned(),
            ..self
        }
    }

    /// The same with another weight.
    pub fn weight(self, weight: u16) -> Self {
        Self { weight, ..self }
    }
}

/// A file with one cluster `C1` on a UNIX socket; `extra` goes into the cluster element as it is.
pub fn config(control: &Path, members: &[Listed], extra: &str) -> String {
    config_of(&[cluster(
        "C1",
        "UNIX",
        &control.display().to_string(),
        members,
        extra,
    )])
}

/// A file with these clusters.
pub fn config_of(clusters: &[String]) -> String {
    format!(
        "<rtp_cluster_config>\n{}</rtp_cluster_config>\n",
        clusters.concat()
    )
}

/// One cluster element.
pub fn cluster(name: &str, protocol: &str, address: &str, members: &[Listed], extra: &str) -> String {
    let mut text = format!(
        "  <rtp_cluster>\n    <name>{name}</name>\n    <protocol>{protocol}</protocol>\n    <address>{address}</address>\n    {extra}\n"
    );
    for member in members {
        let Listed {
            name,
            protocol,
            address,
            weight,
            capacity,
            extra,
        } = member;
        let line = format!(
            "    <rtpproxy><name>{name}</name><protocol>{protocol}</protocol><address>{address}</address>\
             <weight>{weight}</weight><capacity>{capacity}</capacity>{extra}</rtpproxy>\n"
        );
        text.push_str(&line);
    }
    text + "  </rtp_cluster>\n"
}

impl Daemon {
    /// Starts the daemon with `config` and waits until its admin socket answers.
    pub fn start(place: &Place, config: &str) -> Self {
        Self::start_with(place, config, &[])
    }

    /// As [`Daemon::start`], with further arguments.
    pub fn start_with(place: &Place, config: &str, arguments: &[&str]) -> Self {
        Self::start_among(place, config, arguments, None)
    }

    /// As [`Daemon::start`], with a file of names in place of `/etc/hosts`; `None` where the system or our rights do not
    /// allow that for one process.
    pub fn start_with_names(place: &Place, config: &str, names: &Path) -> Option<Self> {
        Self::start_apart(place, config, Apart::with_file(names, "/etc/hosts"))
    }

    /// As [`Daemon::start`], where some things are not as they are for us; `None` where the system or our rights do not
    /// allow that for one process.
    pub fn start_apart(place: &Place, config: &str, apart: Apart) -> Option<Self> {
        let possible = apart.command().arg("true").stderr(Stdio::null()).status();
        possible
            .is_ok_and(|status| status.success())
            .then(|| Self::start_among(place, config, &[], Some(apart)))
    }

    fn start_among(place: &Place, config: &str, arguments: &[&str], apart: Option<Apart>) -> Self {
        let files = Files::in_place(place);
        fs::write(&files.config, config).expect("the configuration can be written");
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let process = launch(&files, &arguments, apart.as_ref());
        let mut daemon = Self {
            process,
            files,
            arguments,
            apart,
        };
        daemon.wait_ready();
        daemon
    }

    /// Its files.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// SIGSTOP: none of its threads does anything until SIGCONT.
    pub fn stop(&self) {
        self.process.stop();
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Waits for it to end by itself.
    pub fn wait_end(&mut self, limit: Duration) -> ExitStatus {
        self.process.wait_end(limit)
    }

    /// Starts it again on the same files, after it has ended.
    pub fn restart(&mut self) {
        self.process = launch(&self.files, &self.arguments, self.apart.as_ref());
        self.wait_ready();
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.files.log).unwrap_or_default()
    }

    /// Sends one line to the admin socket and gives the whole reply.
    pub fn admin(&self, command: &str) -> String {
        self.try_admin(command)
            .unwrap_or_else(|e| panic!("admin {command:?}: {e}\n{}", self.log()))
    }

    fn try_admin(&self, command: &str) -> std::io::Result<String> {
        let mut stream = UnixStream::connect(&self.files.admin)?;
        stream.set_read_timeout(Some(LONG))?;
        stream.write_all(format!("{command}\n").as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        Ok(reply)
    }

    /// Sends one line to the admin socket and fails the test unless the reply ends with `OK`.
    pub fn admin_ok(&self, command: &str) -> String {
        let reply = self.admin(command);
        assert!(reply.lines().last() == Some("OK"), "admin {command:?}: {reply:?}");
        reply
    }

    /// Waits until this many members of cluster `C1` are online, and as many as given are not.
    pub fn wait_members(&self, online: usize, offline: usize) {
        let what = format!("{online} members online and {offline} offline\n{}", self.log());
        let want = (
            format!("    active members = {online}\n"),
            format!("    inactive members = {offline}\n"),
        );
        wait::until_true(what, LONG, || {
            let list = self.admin("ls");
            list.contains(&want.0) && list.contains(&want.1)
        });
    }

    fn wait_ready(&mut self) {
        let start = "the daemon's start";
        wait::until(start, LONG, || {
            if let Ok(Some(status)) = self.process.try_wait() {
                panic!("the daemon ended at its start with {status}:\n{}", self.log());
            }
            self.try_admin("version").ok()
        });
    }
}

/// The daemon's program, as Cargo has built it.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rtp_cluster"));
    command.stdin(Stdio::null());
    command
}

/// What is not as it is for us, for one process: the command that runs another one so, under the same process id.
#[derive(Debug)]
pub struct Apart(Vec<String>);

impl Apart {
    /// With `file` in the place of another.
    pub fn with_file(file: &Path, place: &str) -> Self {
        let script = format!("mount --bind '{}' {place} && exec \"$0\" \"$@\"", file.display());
        Self(
            ["unshare", "--mount", "sh", "-c", &script]
                .map(str::to_owned)
                .into(),
        )
    }

    /// Without any network.
    pub fn without_network() -> Self {
        Self(["unshare", "--net"].map(str::to_owned).into())
    }

    /// With so many descriptors at most.
    pub fn with_descriptors(limit: usize) -> Self {
        Self(vec!["prlimit".to_owned(), format!("--nofile={limit}:{limit}")])
    }

    fn command(&self) -> Command {
        let (program, arguments) = self.0.split_first().expect("there is one");
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        command
    }
}

fn launch(files: &Files, arguments: &[String], apart: Option<&Apart>) -> Process {
    let log = File::options()
        .create(true)
        .append(true)
        .open(&files.log)
        .expect("a log file");
    let mut command = program();
    if let Some(apart) = apart {
        let daemon = command.get_program().to_owned();
        command = apart.command();
        command.arg(daemon);
    }
    command
        .arg("-f")
        .arg("-c")
        .arg(&files.config)
        .arg("-s")
        .arg(&files.admin)
        .arg("-P")
        .arg(&files.pid);
    command
        .args(arguments)
        .stdout(log.try_clone().expect("a descriptor"))
        .stderr(log);
    Process::start("rtp_cluster", &mut command)
}
