//! Real SIP: a Kamailio whose `rtpproxy` module is pointed at a control socket, and sipp at both ends of the calls.

use std::fs::{self, File};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use super::place::Place;
use super::process::Process;
use super::wait::{self, LONG};

const KAMAILIO: &str = include_str!("sip/kamailio.cfg");
const CALLER: &str = include_str!("sip/caller.xml");
const CALLEE: &str = include_str!("sip/callee.xml");

/// Bytes of voice that a caller sends: a second of G.711 silence.
const VOICE: [u8; 8000] = [0xd5; 8000];

/// A Kamailio and a callee behind it.
#[derive(Debug)]
pub struct Sip {
    _kamailio: Process,
    _callee: Process,
    port: u16,
    dir: PathBuf,
}

impl Sip {
    /// Starts both, with media through the RTPproxy or cluster at `control`; returns when Kamailio answers.
    pub fn start(place: &Place, control: &Path) -> Self {
        let (port, callee_port) = (free_port(), free_port());
        let text = KAMAILIO
            .replace("@PORT@", &port.to_string())
            .replace("@CALLEE@", &callee_port.to_string())
            .replace("@CONTROL@", &control.display().to_string())
            .replace("@MODULES@", &modules().display().to_string());
        let config = place.write("kamailio.cfg", text);
        let log = File::create(place.path("kamailio.log")).expect("a log file");
        let mut command = Command::new("kamailio");
        command
            .arg("-f")
            .arg(&config)
            .args(["-DD", "-E", "-m", "64", "-M", "8", "-w"])
            .arg(place.dir());
        command
            .arg("-P")
            .arg(place.path("kamailio.pid"))
            .arg("-Y")
            .arg(place.dir());
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log);
        let kamailio = Process::start("kamailio", &mut command);
        let scenario = place.write("callee.xml", CALLEE);
        let mut command = sipp(place.dir(), &scenario, "callee", callee_port);
        // The media port of sipp is one for all its calls.
        command.args(["-rtp_echo", "-mp", &free_port().to_string()]);
        let callee = Process::start("sipp, the callee", &mut command);
        place.write("voice.raw", VOICE);
        let voice = place.path("voice.raw").display().to_string();
        place.write("caller.xml", CALLER.replace("@VOICE@", &voice));
        let sip = Self {
            _kamailio: kamailio,
            _callee: callee,
            port,
            dir: place.dir().to_owned(),
        };
        wait::until_true(
            format!("Kamailio and sipp in {}", place.dir().display()),
            LONG,
            || sip.answers(),
        );
        sip
    }

    /// Makes this many calls, this many a second; each speaks for a second and hangs up. Success when each one did.
    pub fn call(&self, calls: u32, rate: u32) -> ExitStatus {
        let mut command = sipp(&self.dir, &self.dir.join("caller.xml"), "caller", free_port());
        command.args([
            "-m",
            &calls.to_string(),
            "-r",
            &rate.to_string(),
            "-timeout",
            "60",
            "-timeout_error",
        ]);
        command.arg(format!("127.0.0.1:{}", self.port));
        Process::start("sipp, the caller", &mut command).wait_end(Duration::from_secs(90))
    }

    /// Whether a request reaches the callee: it is refused there, which is an answer.
    fn answers(&self) -> bool {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .expect("a time-out can be set");
        let at = socket.local_addr().expect("bound");
        let request = format!(
            "OPTIONS sip:callee@127.0.0.1:{} SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch=z9hG4bK{}\r\nMax-Forwards: 0\r\n\
             From: <sip:t@{at}>;tag=1\r\nTo: <sip:callee@127.0.0.1>\r\nCall-ID: hello@{at}\r\nCSeq: 1 OPTIONS\r\n\
             Content-Length: 0\r\n\r\n",
            self.port,
            at.port()
        );
        let sent = socket.send_to(request.as_bytes(), ("127.0.0.1", self.port));
        sent.is_ok() && socket.recv(&mut [0; 2048]).is_ok()
    }
}

fn sipp(dir: &Path, scenario: &Path, name: &str, port: u16) -> Command {
    let log = File::create(dir.join(format!("{name}.log"))).expect("a log file");
    let mut command = Command::new("sipp");
    command.current_dir(dir).arg("-sf").arg(scenario).args([
        "-i",
        "127.0.0.1",
        "-p",
        &port.to_string(),
        "-nostdin",
    ]);
    command
        .args(["-trace_err", "-error_file"])
        .arg(dir.join(format!("{name}.errors")));
    command
        .env("TERM", "dumb")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    command
}

/// Where Debian has put Kamailio's modules.
fn modules() -> PathBuf {
    let libraries = Path::new("/usr/lib");
    let here = [libraries.to_owned()].into_iter().chain(
        fs::read_dir(libraries)
            .expect("/usr/lib")
            .filter_map(|entry| entry.ok().map(|entry| entry.path())),
    );
    let found = here
        .map(|dir| dir.join("kamailio/modules"))
        .find(|dir| dir.join("rtpproxy.so").exists());
    found.expect("Kamailio with its rtpproxy module is missing; run `sh tests/run.sh`")
}

fn free_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.local_addr().expect("bound").port()
}
