//! The usual bed of a story: some fake members, a daemon in front of them, and a cluster `C1` on a UNIX socket.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::client;
use super::daemon::{Daemon, Files, Listed, config};
use super::fake::FakeMember;
use super::place::Place;
use super::wait::{self, LONG};

/// Fake members `M1`, `M2`, … and a daemon.
#[derive(Debug)]
pub struct Bed {
    pub daemon: Daemon,
    pub members: Vec<FakeMember>,
    pub place: Place,
}

impl Bed {
    /// With `count` members of equal weight, all online.
    pub fn of(count: usize) -> Self {
        Self::with(count, "", &[])
    }

    /// The same with `extra` in the cluster element and further arguments for the daemon.
    pub fn with(count: usize, extra: &str, arguments: &[&str]) -> Self {
        let members: Vec<FakeMember> = (0..count).map(|_| FakeMember::start()).collect();
        let bed = Self::before(members, extra, arguments);
        bed.daemon.wait_members(count, 0);
        // Each is counted right after it has come online.
        wait::until_true("counts", LONG, || !bed.daemon.admin("ls C1").contains("UNKNOWN"));
        bed
    }

    /// The daemon in front of these members, whatever their state.
    pub fn before(members: Vec<FakeMember>, extra: &str, arguments: &[&str]) -> Self {
        let place = Place::new();
        let text = config(&Files::in_place(&place).control, &listed(&members), extra);
        let daemon = Daemon::start_with(&place, &text, arguments);
        Self {
            daemon,
            members,
            place,
        }
    }

    /// The cluster's control socket.
    pub fn control(&self) -> &Path {
        &self.daemon.files().control
    }

    /// One command and its reply.
    pub fn ask(&self, command: &str) -> String {
        client::ask(self.control(), command)
    }

    /// A new call: the member that has it.
    pub fn call(&self, call_id: &str) -> &FakeMember {
        let reply = self.ask(&create(call_id));
        self.of_reply(&reply)
    }

    /// The member whose address a reply names.
    pub fn of_reply(&self, reply: &str) -> &FakeMember {
        let (_, address) = client::media(reply);
        let member = self.members.iter().find(|member| member.media() == address);
        member.unwrap_or_else(|| panic!("no member has the address of {reply:?}"))
    }

    /// Sessions on all members.
    pub fn sessions(&self) -> u64 {
        self.members.iter().map(FakeMember::sessions).sum()
    }

    /// New calls `PREFIX-0`, `PREFIX-1`, … until one is on `member`; its call-id.
    pub fn call_on(&self, member: usize, prefix: &str) -> String {
        let wanted = self.members[member].media();
        let mut ids = (0..1_000).map(|number| format!("{prefix}-{number}"));
        ids.find(|id| self.call(id).media() == wanted)
            .expect("every member gets one of a thousand calls")
    }
}

/// These members for a configuration, as `M1`, `M2`, …
pub fn listed(members: &[FakeMember]) -> Vec<Listed> {
    let name = |i: usize| format!("M{}", i + 1);
    members
        .iter()
        .enumerate()
        .map(|(i, m)| Listed::udp(&name(i), &m.control().to_string()))
        .collect()
}

/// The U of an INVITE.
pub fn create(call_id: &str) -> String {
    format!("U {call_id} 127.0.0.1 4000 from")
}

/// The L of its answer.
pub fn answer(call_id: &str) -> String {
    format!("L {call_id} 127.0.0.1 4002 from to")
}

/// The D of its end.
pub fn delete(call_id: &str) -> String {
    format!("D {call_id} from to")
}

/// Does `work` for 0 to `count` − 1 with some workers at once, as the processes of a SIP server do, and gives the
/// results in order.
pub fn at_once<T: Send>(workers: usize, count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let result = work(number);
                    done.lock().expect("no worker has failed").push((number, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no worker has failed");
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}
