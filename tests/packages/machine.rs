//! A machine with a plain Debian 12 of its own: a root directory with its own processes and mounts; the network is
//! that of the tests, so that RTPproxies outside serve it. It has no running init: services are started by their init
//! scripts.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::built::{run, target};
use crate::support::place::Place;
use crate::support::process::Process;
use crate::support::wait;

/// How long a script may run on it.
const PATIENCE: Duration = Duration::from_secs(120);
/// What it has beside the packages that every Debian has.
const INCLUDED: &str = "--include=adduser,systemd,logrotate";

/// The machine. It is switched off when dropped.
#[derive(Debug)]
pub struct Machine {
    /// Reads scripts from us and is the first of its processes: the others end with it.
    shell: Process,
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
    /// Switches one on.
    pub fn start() -> Self {
        let place = Place::new();
        let root = place.path("root");
        fs::create_dir(&root).expect("a directory");
        run(Command::new("tar").arg("-xf").arg(base()).arg("-C").arg(&root));
        // Packages may start services; nobody asks when none is there to be asked.
        let policy = root.join("usr/sbin/policy-rc.d");
        fs::write(&policy, "#!/bin/sh\nexit 0\n").expect("a file");
        run(Command::new("chmod").arg("755").arg(&policy));
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c"]);
        command.arg(
            "mount -t proc proc \"$1/proc\" && mount --rbind /dev \"$1/dev\" &&
            exec chroot \"$1\" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C sh",
        );
        command.arg("sh").arg(&root).stdin(Stdio::piped());
        let shell = Process::start("a machine (it takes root: sudo sh tests/run.sh)", &mut command);
        Self { shell, place }
    }

    /// A path on it, as seen from here.
    pub fn path(&self, path: &str) -> PathBuf {
        self.place.path("root").join(path.trim_start_matches('/'))
    }

    /// Brings a file to it; its path there.
    pub fn bring(&self, file: &Path) -> String {
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
        fs::copy(file, self.path("root").join(name)).expect("a copy");
        format!("/root/{name}")
    }

    /// Runs a script as root.
    pub fn try_run(&mut self, script: &str) -> Ran {
        let file = |name: &str| self.path("root").join(name);
        let (job, out, status) = (file("job"), file("out"), file("status"));
        fs::write(&job, script).expect("a file");
        drop(fs::remove_file(&status));
        let line = "sh /root/job </dev/null >/root/out 2>&1; echo $? >/root/status.new; mv /root/status.new /root/status\n";
        let input = self.shell.stdin.as_mut().expect("its input is a pipe");
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
