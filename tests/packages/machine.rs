//! A machine with a plain Debian 12 of its own: a root directory with its own processes and mounts; the network is
//! that of the tests, so that RTPproxies outside serve it. Either it has no running init, and services are started by
//! their init scripts, or systemd has booted it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::built::{run, target, text};
use crate::support::place::Place;
use crate::support::process::Process;
use crate::support::wait;

/// How long a script may run on it.
const PATIENCE: Duration = Duration::from_secs(120);
/// What scripts find in their environment.
const ENVIRONMENT: [&str; 3] = [
    "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
    "DEBIAN_FRONTEND=noninteractive",
    "LC_ALL=C",
];
/// What it has beside the packages that every Debian has.
const INCLUDED: &str = "--include=adduser,systemd,logrotate";

/// The machine. It is switched off when dropped.
#[derive(Debug)]
pub struct Machine {
    /// Its other processes end with it.
    first: Process,
    /// Its systemd, if it has one: the number here of the process that is number 1 there.
    init: Option<Pid>,
    place: Place,
}

/// How a script ended.
#[derive(Debug)]
pub struct Ran {
    pub status: i32,
    /// Standard output and error.
    pub text: String,
}

impl Machine {
    /// Switches one on that has no init.
    pub fn start() -> Self {
        let place = Place::new();
        let root = unpack(&place);
        // Packages may start services although there is no init.
        let policy = root.join("usr/sbin/policy-rc.d");
        fs::write(&policy, "#!/bin/sh\nexit 0\n").expect("a file");
        run(Command::new("chmod").arg("755").arg(&policy));
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c"]);
        command.arg(
            "mount -t proc proc \"$1/proc\" && mount --rbind /dev \"$1/dev\" &&
            root=$1 && shift && exec chroot \"$root\" env -i \"$@\" sh",
        );
        command
            .arg("sh")
            .arg(&root)
            .args(ENVIRONMENT)
            .stdin(Stdio::piped());
        // This shell is the first of its processes, and reads scripts from us.
        let first = Process::start("a machine (it takes root: sudo sh tests/run.sh)", &mut command);
        Self {
            first,
            init: None,
            place,
        }
    }

    /// Boots one with systemd, and waits until it is up.
    pub fn boot() -> Self {
        let place = Place::new();
        let root = unpack(&place);
        let console = File::create(place.path("console")).expect("a file");
        let mut command = Command::new("systemd-nspawn");
        command.args([
            "--quiet",
            "--register=no",
            "--keep-unit",
            "--console=pipe",
            "--directory",
        ]);
        command.arg(&root).arg("/lib/systemd/systemd");
        command
            .stdin(Stdio::null())
            .stdout(console.try_clone().expect("a descriptor"))
            .stderr(console);
        let first = Process::start("systemd-nspawn", &mut command);
        let children = format!("/proc/{0}/task/{0}/children", first.id());
        let console = place.path("console");
        let init = wait::until("the machine's systemd", PATIENCE, || {
            let children = fs::read_to_string(&children).unwrap_or_else(|e| {
                panic!("{e}: {}", fs::read_to_string(&console).unwrap_or_default());
            });
            let pid = children.split_whitespace().next()?;
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            (name == "systemd\n").then(|| pid.parse().ok())?
        });
        let mut machine = Self {
            first,
            init: Pid::from_raw(init),
            place,
        };
        // Degraded is up as well: some unit of Debian's own does not like to be in a container.
        wait::until_true("the end of the boot", PATIENCE, || {
            let state = machine.try_run("systemctl is-system-running").text;
            state == "running\n" || state == "degraded\n"
        });
        machine
    }

    /// A path on it, as seen from here.
    pub fn path(&self, path: &str) -> PathBuf {
        let root = match self.init {
            // What systemd has mounted there is seen only through one of its processes.
            Some(init) => format!("/proc/{init}/root").into(),
            None => self.place.path("root"),
        };
        root.join(path.trim_start_matches('/'))
    }

    /// Brings a file to it; its path there.
    pub fn bring(&self, file: &Path) -> String {
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
        fs::copy(file, self.path("root").join(name)).expect("a copy");
        format!("/root/{name}")
    }

    /// Runs a script as root.
    pub fn try_run(&mut self, script: &str) -> Ran {
        if let Some(init) = self.init {
            let mut command = Command::new("nsenter");
            command.args(["--all", "--target", &init.to_string(), "env", "-i"]);
            command
                .args(ENVIRONMENT)
                .args(["sh", "-c", &format!("exec 2>&1\n{script}")]);
            let output = command.stdin(Stdio::null()).output().expect("nsenter");
            return Ran {
                status: output.status.code().unwrap_or(-1),
                text: text(&output),
            };
        }
        let file = |name: &str| self.path("root").join(name);
        let (job, out, status) = (file("job"), file("out"), file("status"));
        fs::write(&job, script).expect("a file");
        drop(fs::remove_file(&status));
        let line = "sh /root/job </dev/null >/root/out 2>&1; echo $? >/root/status.new; mv /root/status.new /root/status\n";
        let input = self.first.stdin.as_mut().expect("its input is a pipe");
        input.write_all(line.as_bytes()).expect("the shell lives");
        let status = wait::until(format!("the end of {script:?}"), PATIENCE, || {
            fs::read_to_string(&status).ok()
        });
        Ran {
            status: status.trim().parse().expect("a number"),
            text: fs::read_to_string(&out).expect("its output"),
        }
    }

    /// Runs a script that must succeed.
    pub fn run(&mut self, script: &str) -> String {
        let Ran { status, text } = self.try_run(script);
        assert_eq!(status, 0, "{script}: {text}");
        text
    }

    /// Every file, with its type, rights and owner, but for what the system itself writes as it goes.
    pub fn files(&mut self) -> Vec<String> {
        let list = self.run("find / -xdev \\( -path /proc -o -path /dev -o -path /root \\) -prune -o -printf '%p %y %m %u:%g\\n' | sort");
        let noise = [
            "/var/cache/apt/",
            "/var/lib/apt/",
            "/var/lib/dpkg/",
            "/var/lib/logrotate/",
            "/var/log/apt",
            "/var/log/dpkg.log",
            "/var/lib/systemd/deb-systemd-",
            "/run/adduser",
            "/run/systemd",
            "/tmp ",
            "/var/tmp ",
        ];
        let lines = list
            .lines()
            .filter(|line| !noise.iter().any(|noise| line.starts_with(noise)));
        lines.map(str::to_owned).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // With its systemd goes all of it, what systemd-nspawn has mounted included.
        if let Some(init) = self.init {
            let _ = kill_process(init, Signal::KILL);
            drop(self.first.wait());
        }
    }
}

/// Makes its root directory.
fn unpack(place: &Place) -> PathBuf {
    let root = place.path("root");
    fs::create_dir(&root).expect("a directory");
    run(Command::new("tar").arg("-xf").arg(base()).arg("-C").arg(&root));
    root
}

/// A Debian 12, fetched once into the directory of the build.
fn base() -> &'static Path {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| {
        let path = target().join("packages/debian-12.tar");
        if !path.exists() {
            fs::create_dir_all(target().join("packages")).expect("a directory");
            let unfinished = path.with_extension(format!("{}.tar", std::process::id()));
            let mut command = Command::new("mmdebstrap");
            command
                .args(["--variant=minbase", INCLUDED, "bookworm"])
                .arg(&unfinished);
            run(command.stdin(Stdio::null()));
            // Whole, or not there.
            File::open(&unfinished)
                .and_then(|file| file.sync_all())
                .expect("it was written");
            fs::rename(&unfinished, &path).expect("a rename");
        }
        path
    })
}
