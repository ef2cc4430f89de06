//! Child processes that end with the test, whatever way it ends.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use super::wait::{self, LONG};

/// A child that is killed and reaped when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    what: String,
}

impl Process {
    /// Starts `command`; `what` names it where something fails.
    pub fn start(what: &str, command: &mut Command) -> Self {
        let child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{what}: {command:?}: {e}"));
        Self {
            child,
            what: what.to_owned(),
        }
    }

    /// Sends `signal` to it.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap_or_else(|e| panic!("{}: {e}", self.what));
    }

    /// SIGSTOP, until all of its threads stand still: they may go on for a moment, and answer what comes.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.child.id());
        wait::until_true(format!("{} stands still", self.what), LONG, || {
            let tasks = fs::read_dir(&tasks).expect("a process has threads");
            tasks.flatten().all(|task| {
                let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                stat.rsplit(')')
                    .next()
                    .is_some_and(|rest| rest.trim_start().starts_with('T'))
            })
        });
    }

    /// Waits for its end, `limit` at most.
    pub fn wait_end(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("end of {}", self.what);
        wait::until(what, limit, || {
            self.child.try_wait().expect("a child can be waited for")
        })
    }

    /// Kills it as `kill -9` does, and reaps it.
    pub fn kill(&mut self) {
        // Already dead is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Deref for Process {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.child
    }
}

impl DerefMut for Process {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A daemon in the background, known by its pid file; killed with the test.
#[derive(Debug)]
pub struct Background(Pid);

impl Background {
    /// The one that has written `pid_file`.
    pub fn of(pid_file: &Path) -> Self {
        let text = fs::read_to_string(pid_file).expect("a pid file");
        let pid = text.trim().parse().ok().and_then(Pid::from_raw);
        Self(pid.unwrap_or_else(|| panic!("no pid: {text:?}")))
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.0.as_raw_nonzero().get()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.0, signal).expect("it lives");
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It has usually ended by now.
        let _ = kill_process(self.0, Signal::KILL);
    }
}
