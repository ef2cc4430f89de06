//! Real SIP: a Kamailio or a Sippy B2BUA that is pointed at a control socket, and sipp at both ends of the calls.

use std::fs::{self, File};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::place::Place;
use super::process::Process;
use super::real::python;
use super::wait::{self, LONG};

const KAMAILIO: &str = include_str!("sip/kamailio.cfg");
const CALLER: &str = include_str!("sip/caller.xml");
const CHANGING_CALLER: &str = include_str!("sip/changing_caller.xml");
const CALLEE: &str = include_str!("sip/callee.xml");

/// A B2BUA that forgets a call, and deletes its session, a second after its end instead of 32.
const B2BUA: &str = "from sippy import UA, b2bua; UA.UA.godead_timeout = 1.0; b2bua.main_func()";

/// What the scenarios say last of their one stream.
const VOICE_LINE: &str = "a=rtpmap:8 PCMA/8000\n";
/// Another one.
const PICTURES: &str = "m=video 9 RTP/AVP 34\na=rtpmap:34 H263/90000\n";

/// Bytes of voice that a caller sends: a second of G.711 silence.
const VOICE: [u8; 8000] = [0xd5; 8000];

/// A SIP server and a callee behind it.
#[derive(Debug)]
pub struct Sip {
    _server: Process,
    _callee: Process,
    port: u16,
    dir: PathBuf,
}

impl Sip {
    /// A Kamailio, with media through the RTPproxy or cluster at `control`: `unix:…`, `udp:…`, `udp6:…`.
    pub fn kamailio(place: &Place, control: &str) -> Self {
        Self::kamailio_with(place, control, "")
    }

    /// The same between parties who offer a picture too, and send none.
    pub fn kamailio_with_pictures(place: &Place, control: &str) -> Self {
        Self::kamailio_with(place, control, PICTURES)
    }

    fn kamailio_with(place: &Place, control: &str, more: &str) -> Self {
        let (port, callee) = (free_port(), free_port());
        let text = KAMAILIO
            .replace("@PORT@", &port.to_string())
            .replace("@CALLEE@", &callee.to_string())
            .replace("@CONTROL@", control)
            .replace("@MODULES@", &modules().display().to_string());
        let config = place.write("kamailio.cfg", text);
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
        // What the callee calls itself: Kamailio only stands on the way.
        Self::start(place, "kamailio", command, (port, callee), "[next_url]", more)
    }

    /// A Sippy B2BUA, likewise; also `cunix:…`, `tcp:…`, `tcp6:…`. It asks for notifications at a socket of its own.
    pub fn b2bua(place: &Place, control: &str) -> Self {
        let (port, callee) = (free_port(), free_port());
        let mut command = Command::new(python());
        command.args(["-c", B2BUA, "-f", "-u", "-D", "-A0", "-l", "127.0.0.1"]);
        command
            .args(["-p", &port.to_string(), "-s", &format!("127.0.0.1:{callee}")])
            .args(["-r", control, "-c"])
            .arg(place.path("b2bua.sock"));
        command.env("SIPLOG_BEND", "stderr").current_dir(place.dir());
        // It is the caller's peer itself, and writes its own name into its Contact, which sipp does not understand.
        let peer = "sip:callee@[remote_ip]:[remote_port]";
        Self::start(place, "b2bua", command, (port, callee), peer, "")
    }

    /// Starts the server, and the callee at a port of its own; returns when the server answers. `peer` is whom the
    /// caller's later requests are for, `more` what both say of further media.
    fn start(
        place: &Place,
        name: &str,
        mut server: Command,
        (port, callee): (u16, u16),
        peer: &str,
        more: &str,
    ) -> Self {
        let sdp = |scenario: &str| scenario.replace(VOICE_LINE, &format!("{VOICE_LINE}{more}"));
        let log = File::create(place.path(&format!("{name}.log"))).expect("a log file");
        server
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log);
        let server = Process::start(name, &mut server);
        let scenario = place.write("callee.xml", sdp(CALLEE));
        let mut command = sipp(place.dir(), &scenario, "callee", callee);
        // The media port of sipp is one for all its calls.
        command.args(["-rtp_echo", "-mp", &free_port().to_string()]);
        let callee = Process::start("sipp, the callee", &mut command);
        place.write("voice.raw", VOICE);
        let voice = place.path("voice.raw").display().to_string();
        for (name, scenario) in [("caller.xml", CALLER), ("changing_caller.xml", CHANGING_CALLER)] {
            place.write(
                name,
                sdp(scenario).replace("@VOICE@", &voice).replace("@PEER@", peer),
            );
        }
        let sip = Self {
            _server: server,
            _callee: callee,
            port,
            dir: place.dir().to_owned(),
        };
        wait::until_true(
            format!("{name} and sipp in {}", place.dir().display()),
            LONG,
            || sip.answers(),
        );
        sip
    }

    /// Makes this many calls, this many a second; each speaks for a second and hangs up. Success when each one did.
    pub fn call(&self, calls: u32, rate: u32) -> ExitStatus {
        self.caller("caller.xml", calls, rate)
            .wait_end(Duration::from_secs(90))
    }

    /// The same, and each call is changed some four seconds after its begin, and speaks for another second. They are
    /// under way when this returns.
    pub fn changing_calls(&self, calls: u32, rate: u32) -> Process {
        self.caller("changing_caller.xml", calls, rate)
    }

    fn caller(&self, scenario: &str, calls: u32, rate: u32) -> Process {
        let mut command = sipp(&self.dir, &self.dir.join(scenario), "caller", free_port());
        command.args(["-m", &calls.to_string(), "-r", &rate.to_string()]);
        command.args(["-timeout", "60", "-timeout_error"]);
        command.arg(format!("127.0.0.1:{}", self.port));
        Process::start("sipp, the caller", &mut command)
    }

    /// Whether the server answers: it refuses this request, which is an answer.
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

/// A port that is free, and so are the next three: sipp takes one for voice, one for pictures, and theirs for RTCP. It
/// is below those that the system gives to whoever asks for any, so that nobody gets it in between.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Another test program that runs now has another number, and so begins elsewhere.
    let ours = std::process::id().wrapping_mul(97) % 5_000;
    let mut ports = (0..5_000).map(|_| 10_000 + (ours + NEXT.fetch_add(1, Ordering::Relaxed)) % 5_000 * 4);
    let free = |port: u32| {
        let port = u16::try_from(port).ok()?;
        (port..port + 4)
            .all(|port| UdpSocket::bind(("127.0.0.1", port)).is_ok())
            .then_some(port)
    };
    ports.find_map(free).expect("a free port")
}
