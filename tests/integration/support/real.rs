//! A real RTPproxy: the engine of PyPI's `rtp.io`, with real control sockets and real media.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::member::{self, CONTROL_PORT};
use super::place::Place;
use super::process::Process;

const SCRIPT: &str = include_str!("rtpproxy.py");

/// A running RTPproxy.
#[derive(Debug)]
pub struct RealMember {
    process: Process,
    address: IpAddr,
    unix: PathBuf,
    cunix: PathBuf,
    /// Further arguments of its own.
    flags: Vec<String>,
}

impl RealMember {
    /// Starts one on UDP, TCP, and two UNIX sockets in `place`, and waits until it serves.
    pub fn start(place: &Place, name: &str) -> Self {
        Self::start_with(place, name, &[])
    }

    /// The same with further arguments for RTPproxy.
    pub fn start_with(place: &Place, name: &str, flags: &[&str]) -> Self {
        let address = member::own_address();
        let (unix, cunix) = (
            place.path(&format!("{name}.sock")),
            place.path(&format!("{name}.kept.sock")),
        );
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        let process = launch(address, &unix, &cunix, &flags);
        Self {
            process,
            address,
            unix,
            cunix,
            flags,
        }
    }

    /// The address in its replies.
    pub fn media(&self) -> String {
        self.address.to_string()
    }

    /// Its control socket over UDP, and over TCP.
    pub fn control(&self) -> SocketAddr {
        (self.address, CONTROL_PORT).into()
    }

    /// Its socket that takes one command a connection.
    pub fn unix(&self) -> &Path {
        &self.unix
    }

    /// Its socket that keeps connections.
    pub fn cunix(&self) -> &Path {
        &self.cunix
    }

    /// Sessions that it counts.
    pub fn sessions(&self) -> u64 {
        member::active_sessions(self.control())
    }

    /// SIGSTOP: silent, its sockets still there.
    pub fn stop(&self) {
        self.process.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.process.signal(Signal::CONT);
    }

    /// `kill -9`: its sockets are gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again after [`RealMember::kill`], on the same sockets, without its sessions.
    pub fn restart(&mut self) {
        self.process = launch(self.address, &self.unix, &self.cunix, &self.flags);
    }
}

/// The Python of the environment that `tests/run.sh` makes beside the build.
pub fn python() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("a directory of the build");
    target.join("rtpproxy/bin/python")
}

fn launch(address: IpAddr, unix: &Path, cunix: &Path, flags: &[String]) -> Process {
    let python = python();
    assert!(
        python.exists(),
        "no RTPproxy: {} is missing; run `sh tests/run.sh`",
        python.display()
    );
    for path in [unix, cunix] {
        // What a killed one has left.
        drop(std::fs::remove_file(path));
    }
    let mut command = Command::new(python);
    command.args(["-c", SCRIPT]).arg(address.to_string());
    for transport in ["udp", "tcp"] {
        command.arg(format!("{transport}:{address}:{CONTROL_PORT}"));
    }
    command
        .arg(format!("unix:{}", unix.display()))
        .arg(format!("cunix:{}", cunix.display()))
        .arg("--")
        .args(flags);
    // It tells of every command that it refuses, and the tests send many of those.
    let mut process = Process::start(
        "RTPproxy",
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null()),
    );
    let mut line = String::new();
    let stdout = process.stdout.take().expect("the output is a pipe");
    BufReader::new(stdout)
        .read_line(&mut line)
        .expect("the output can be read");
    assert_eq!(line, "ready\n", "RTPproxy did not start at {address}");
    process
}
