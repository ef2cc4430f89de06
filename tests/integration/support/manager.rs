//! A service manager as systemd is one for us: hears what the daemon tells it, keeps the sockets that it is given, and
//! hands them to the daemon that it starts next.

use std::fs::{self, File};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::Signal;

use super::daemon::Files;
use super::place::Place;
use super::process::Process;
use super::wait::LONG;

/// Starts a program with the descriptors 0 and 1, sockets to be handed over, as 3 and 4, and no others of ours.
const SCRIPT: &str = r#"export LISTEN_PID=$$; exec "$@" 3<&0 4>&1 </dev/null >/dev/null"#;

/// The manager and its one service.
#[derive(Debug)]
pub struct Manager {
    place: Place,
    files: Files,
    socket: UnixDatagram,
    /// The descriptors that it keeps, by their names; at a start two at most, since so many [`SCRIPT`] passes on.
    pub store: Vec<(String, OwnedFd)>,
    service: Option<Process>,
    environment: Vec<(String, String)>,
}

impl Manager {
    /// For a daemon with the files of `place`. It is not started yet.
    pub fn new(place: Place) -> Self {
        let files = Files::in_place(&place);
        let socket = UnixDatagram::bind(place.path("notify")).expect("a socket");
        socket
            .set_read_timeout(Some(LONG))
            .expect("a time-out can be set");
        Self {
            place,
            files,
            socket,
            store: Vec::new(),
            service: None,
            environment: Vec::new(),
        }
    }

    /// Further environment of the service.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The service's files.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Writes the service's configuration.
    pub fn configure(&self, text: &str) {
        fs::write(&self.files.config, text).expect("a file");
    }

    /// What the service has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.files.log).unwrap_or_default()
    }

    /// Starts the service and waits until it says that it is ready.
    pub fn start(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.files.log)
            .expect("a log file");
        let mut command = Command::new("sh");
        command
            .args(["-c", SCRIPT, "sh"])
            .arg(env!("CARGO_BIN_EXE_rtp_cluster"));
        command.arg("-f").arg("-c").arg(&self.files.config);
        command
            .arg("-s")
            .arg(&self.files.admin)
            .arg("-P")
            .arg(&self.files.pid);
        let names: Vec<&str> = self.store.iter().map(|(name, _)| &**name).collect();
        command
            .env("NOTIFY_SOCKET", self.place.path("notify"))
            .env("FDSTORE", "8")
            .env("LISTEN_FDS", names.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stderr(log);
        let mut kept = self
            .store
            .iter()
            .map(|(_, fd)| fd.try_clone().expect("a descriptor"));
        command.stdin(kept.next().map_or_else(Stdio::null, Stdio::from));
        command.stdout(kept.next().map_or_else(Stdio::null, Stdio::from));
        assert!(
            kept.next().is_none(),
            "more descriptors than the script passes on"
        );
        drop(kept);
        self.service = Some(Process::start("rtp_cluster", &mut command));
        self.hear("READY=1");
    }

    /// SIGTERM, as `systemctl stop` sends; the service's exit status. What it kept is kept.
    pub fn stop(&mut self) -> Option<i32> {
        let mut service = self.service.take().expect("it runs");
        service.signal(Signal::TERM);
        self.hear("STOPPING=1");
        service.wait_end(LONG).code()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.service.take().expect("it runs").kill();
    }

    /// The service.
    pub fn service(&self) -> &Process {
        self.service.as_ref().expect("it runs")
    }

    /// Does what messages of the service ask for, until one has a line `wanted`; all its lines.
    pub fn hear(&mut self, wanted: &str) -> Vec<String> {
        loop {
            let (lines, descriptor) = self.receive(wanted);
            let value = |key: &str| lines.iter().find_map(|line| line.strip_prefix(key));
            let name = value("FDNAME=").unwrap_or_default().to_owned();
            if value("FDSTORE=").is_some() {
                self.store.push((name, descriptor.expect("one is sent along")));
            } else if value("FDSTOREREMOVE=").is_some() {
                self.store.retain(|(kept, _)| *kept != name);
            }
            if lines.iter().any(|line| line == wanted) {
                return lines;
            }
        }
    }

    fn receive(&self, wanted: &str) -> (Vec<String>, Option<OwnedFd>) {
        let mut text = [0; 1024];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut attached = RecvAncillaryBuffer::new(&mut room);
        let mut into = [IoSliceMut::new(&mut text)];
        let received = recvmsg(&self.socket, &mut into, &mut attached, RecvFlags::CMSG_CLOEXEC)
            .unwrap_or_else(|e| panic!("{wanted} was never told: {e}\n{}", self.log()));
        let descriptor = attached.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
            _ => None,
        });
        let text = String::from_utf8_lossy(&text[..received.bytes]).into_owned();
        (text.lines().map(str::to_owned).collect(), descriptor)
    }

    /// A path in its place.
    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path(name)
    }
}
