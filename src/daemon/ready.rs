//! Going to the background, and what the caller is told: the process that the user started stays until the daemon
//! serves or has failed, prints the daemon's messages on its terminal, and exits with the daemon's status.

use std::fs::File;
use std::io::{self, Read, Write};

use daemonize::{Daemonize, Outcome};

use super::StartError;
use super::options::LogTarget;

/// Longest message to the caller, in bytes: more than all errors of a sane start.
const MESSAGE_MAX: u64 = 64 << 10;
/// Mask of a daemon's new files. Sockets, log and pid file set their modes themselves.
const UMASK: u32 = 0o027;

/// Who waits for us to be ready.
#[derive(Debug)]
pub(crate) enum Caller {
    /// We are in the foreground: the terminal is our own standard error.
    Terminal,
    /// The process that the user started, at the other end of a pipe.
    Parent(File),
}

/// On which side of the fork we are.
pub(crate) enum Side {
    /// What the user started; it exits with this status.
    Parent(u8),
    /// The daemon to be, with nothing left of its terminal.
    Daemon(Caller),
}

impl Caller {
    /// Everything serves: the caller may go, with `notes` on its terminal.
    pub(crate) fn ready(self, notes: &[String]) {
        self.tell(0, notes);
    }

    /// The start has failed; the status is for our own end as well.
    pub(crate) fn failed(self, error: &StartError) -> u8 {
        self.tell(error.exit, &error.messages);
        error.exit
    }

    fn tell(self, exit: u8, messages: &[String]) {
        match self {
            Self::Terminal => print(messages),
            Self::Parent(mut pipe) => {
                let mut told = vec![exit];
                told.extend_from_slice(messages.join("\n").as_bytes());
                // The caller may have been killed; that changes nothing for us.
                let _ = pipe.write_all(&told);
            }
        }
    }
}

/// Messages on the terminal, each line with our name.
pub(crate) fn print(messages: &[String]) {
    let lines = messages.iter().flat_map(|message| message.lines());
    let text = lines.fold(String::new(), |text, line| text + "rtp_cluster: " + line + "\n");
    // A closed terminal is no reason to fail.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Forks into the background; `log` is where a daemon that dies has left its last words. No thread, log or signal handler may exist yet: they would not survive it.
pub(crate) fn detach(log: &LogTarget) -> Side {
    let (from_daemon, to_parent) = match rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC) {
        Ok((read, write)) => (File::from(read), File::from(write)),
        Err(error) => {
            print(&[format!("cannot make a pipe: {error}")]);
            return Side::Parent(1);
        }
    };
    match Daemonize::new().working_directory("/").umask(UMASK).execute() {
        Outcome::Parent(forked) => {
            drop(to_parent);
            if let Err(error) = forked {
                print(&[format!("cannot go to the background: {error}")]);
                return Side::Parent(1);
            }
            Side::Parent(wait(from_daemon, log))
        }
        Outcome::Child(Ok(_)) => Side::Daemon(Caller::Parent(to_parent)),
        Outcome::Child(Err(error)) => {
            let error = StartError::new(1, format!("cannot go to the background: {error}"));
            Side::Parent(Caller::Parent(to_parent).failed(&error))
        }
    }
}

/// Waits for what the daemon tells, prints it, and returns the status to exit with.
fn wait(from_daemon: impl Read, log: &LogTarget) -> u8 {
    let mut told = Vec::new();
    // What came before an error is as good as without it.
    let _ = from_daemon.take(MESSAGE_MAX).read_to_end(&mut told);
    let Some((&exit, messages)) = told.split_first() else {
        // Only a panic or a kill ends it so; the first is in the log.
        let log = match log {
            LogTarget::File(path) => path.display().to_string(),
            LogTarget::Syslog(_) => "syslog".to_owned(),
        };
        print(&[format!("the daemon ended while it started; see {log}")]);
        return 1;
    };
    print(&[String::from_utf8_lossy(messages).into_owned()]);
    exit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(tell: impl FnOnce(Caller)) -> u8 {
        let (read, write) = rustix::pipe::pipe().unwrap();
        tell(Caller::Parent(File::from(write)));
        wait(File::from(read), &LogTarget::File("/var/log/x".into()))
    }

    #[test]
    fn the_caller_exits_with_the_status_of_the_start() {
        assert_eq!(told(|caller| caller.ready(&[])), 0);
        let error = StartError::new(75, "another instance lives".to_owned());
        assert_eq!(told(|caller| assert_eq!(caller.failed(&error), 75)), 75);
    }

    #[test]
    fn a_daemon_that_dies_without_a_word_is_a_failure() {
        assert_eq!(told(drop), 1);
    }
}
