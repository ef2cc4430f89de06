//! The status program under test, its HTTP spoken over plain TCP, and its page in a real browser.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use super::place::Place;
use super::process::Process;
use super::wait::{self, LONG};

/// A running `rtp_cluster_status` on a port of its own.
#[derive(Debug)]
pub struct Status {
    pub address: String,
    _process: Process,
    log: PathBuf,
}

/// What a server answers.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Status {
    /// Starts it in front of the daemon's socket, and waits until it serves.
    pub fn start(place: &Place, socket: &Path) -> Self {
        let log = place.path("status.log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_rtp_cluster_status"));
        command
            .args(["-l", "127.0.0.1:0", "-s"])
            .arg(socket)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stderr(File::create(&log).expect("a log can be made"));
        let process = Process::start("rtp_cluster_status", &mut command);
        let address = wait::until("a status program that serves", LONG, || {
            let text = fs::read_to_string(&log).ok()?;
            let (_, rest) = text.split_once("serving http://")?;
            rest.split_once("/\n").map(|(address, _)| address.to_owned())
        });
        Self {
            address,
            _process: process,
            log,
        }
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends these bytes and reads until it closes.
    pub fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        stream
            .set_read_timeout(Some(LONG))
            .expect("a time-out can be set");
        stream.write_all(bytes).expect("it reads");
        stream.shutdown(Shutdown::Write).expect("it is still there");
        let mut text = Vec::new();
        stream.read_to_end(&mut text).expect("it answers and closes");
        String::from_utf8(text).expect("UTF-8")
    }

    /// GET, with further header lines.
    pub fn get_with(&self, target: &str, headers: &str) -> Answer {
        let text = self.raw(format!("GET {target} HTTP/1.1\r\nHost: test\r\n{headers}\r\n").as_bytes());
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("{target}: {text}"));
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        Answer {
            status: status.unwrap_or_else(|| panic!("{target}: {head}")),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    /// GET.
    pub fn get(&self, target: &str) -> Answer {
        self.get_with(target, "")
    }

    /// Waits for an answer of which `condition` holds.
    pub fn wait(&self, target: &str, mut condition: impl FnMut(&Answer) -> bool) -> Answer {
        wait::until(format!("{target}\n{}", self.log()), LONG, || {
            let answer = self.get(target);
            condition(&answer).then_some(answer)
        })
    }

    /// The page in a browser of this width, left open.
    pub fn browse(&self, place: &Place, target: &str, width: u32) -> Browser {
        let profile = place.path(&format!("browser-{width}"));
        let url = format!("http://{}{target}", self.address);
        let mut command = Command::new("python3");
        command
            .args(["-c", include_str!("browser.py"), &url, &width.to_string()])
            .arg(profile)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Process::start("a browser", &mut command);
        Browser {
            input: process.stdin.take(),
            output: BufReader::new(process.stdout.take().expect("piped")),
            process,
        }
    }
}

/// An open page, see `browser.py`.
#[derive(Debug)]
pub struct Browser {
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    process: Process,
}

impl Browser {
    fn tell(&mut self, line: &str) -> Value {
        let input = self.input.as_mut().expect("it is open");
        writeln!(input, "{line}").expect("the browser listens");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("the browser answers");
        serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{line}: {answer:?}: {e}"))
    }

    /// Waits until this expression of JavaScript is true.
    pub fn until(&mut self, expression: &str) {
        self.tell(&format!("until {expression}"));
    }

    /// The value of an expression.
    pub fn eval(&mut self, expression: &str) -> Value {
        self.tell(&format!("eval {expression}"))
    }

    /// Writes a screenshot.
    pub fn shoot(&mut self, picture: &Path) {
        self.tell(&format!("shot {}", picture.display()));
    }

    /// What it has complained of.
    pub fn console(&mut self) -> Value {
        self.tell("console")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its end is that of the browser, which would outlive a kill.
        self.input = None;
        drop(self.process.wait());
    }
}

/// Gives `text` to `promtool`, and fails the test with what it says unless it is content.
pub fn promtool(arguments: &[&str], text: &str) {
    let mut promtool = Command::new("promtool");
    let mut child = promtool
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed: see tests/run.sh");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(text.as_bytes()).expect("promtool reads");
    drop(input);
    let done = child.wait_with_output().expect("promtool ends");
    let said = [done.stdout, done.stderr].concat();
    assert!(
        done.status.success(),
        "promtool {arguments:?}: {}\n{text}",
        String::from_utf8_lossy(&said)
    );
}
