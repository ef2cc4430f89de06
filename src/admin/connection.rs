//! One connection to an admin socket: what its client has sent and not been answered, what it was answered and has
//! not read. Part of the rim. Nothing here blocks; the thread calls it when poll(2) says that it may read or write.

use core::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::PollFlags;

use super::apply::{self, Outcome};
use super::command::Wait;
use super::commands::Access;
use super::following::Following;
use super::grammar;
use super::limits::{Limits, Warnings};
use super::lines::{LINE_MAX, Line, Lines};
use super::listing::Listing;
use super::places::Place;
use super::reply::Reply;
use crate::admin::operator::{Operator, Refusal};
use crate::rim::feed::Wake;
use crate::sockets::handover;

/// Bytes of one read.
const READ_SIZE: usize = 16 * 1024;
/// A client with more than this to read gets no further command carried out until it has read. One reply may still
/// be as long as [`super::reply::REPLY_MAX`].
const UNREAD_MAX: usize = 256 * 1024;
/// A listing goes on when no more than this of it is left to read.
const UNREAD_PART_MAX: usize = 64 * 1024;
/// Commands of one client in a row, or parts of a listing, before the others have their turn.
const COMMANDS_A_TURN: usize = 16;
/// Characters of a command that are logged.
const LOGGED: usize = 512;

/// One client.
#[derive(Debug)]
pub(super) struct Connection {
    socket: UnixStream,
    peer: Peer,
    read_only: bool,
    lines: Lines,
    out: Vec<u8>,
    /// Bytes of `out` that were written already.
    written: usize,
    /// The reply that is not over. Later commands of the connection stand behind it.
    task: Option<Task>,
    /// Others have not read so much that it gets nothing at the moment.
    held: bool,
    /// When it last began a line, ended one, or read something: a byte now and then is no activity.
    active: Instant,
    /// It will send no more.
    input_ended: bool,
    phase: Phase,
}

/// How far a connection is from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// It gets what is in `out`, and no more.
    Closing,
    /// Nothing is read or written any more.
    Over,
}

/// A reply that goes on.
#[derive(Debug)]
enum Task {
    /// It comes when a member is so.
    Wait(Parked),
    /// It is written as it is read.
    List(Listing),
    /// It is written as it happens.
    Follow(Following),
}

/// A `wait` that goes on.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) wait: Wait,
    pub(super) until: Instant,
}

/// What commands are carried out with.
pub(super) struct Desk<'a> {
    pub(super) operator: &'a dyn Operator,
    /// Wakes the thread for what is followed.
    pub(super) wake: &'a Wake,
    pub(super) warnings: &'a mut Warnings,
}

impl Connection {
    pub(super) fn new(now: Instant, socket: UnixStream, read_only: bool) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            peer: Peer::of(&socket),
            socket,
            read_only,
            lines: Lines::default(),
            out: Vec::new(),
            written: 0,
            task: None,
            held: false,
            active: now,
            input_ended: false,
            phase: Phase::Serving,
        })
    }

    pub(super) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(super) fn place(&mut self) -> Place {
        Place {
            read_only: self.read_only,
            is_owed: self.task.is_some() || self.unread() > 0 || self.lines.has_line(),
            active: self.active,
        }
    }

    pub(super) fn parked(&self) -> Option<&Parked> {
        match &self.task {
            Some(Task::Wait(parked)) => Some(parked),
            _ => None,
        }
    }

    /// Whether its reply comes when something has happened.
    pub(super) fn is_open_ended(&self) -> bool {
        matches!(self.task, Some(Task::Wait(_) | Task::Follow(_)))
    }

    /// Bytes that it has not read yet.
    pub(super) fn unread(&self) -> usize {
        self.out.len() - self.written
    }

    /// Whether it has nothing more to get.
    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over || (self.phase == Phase::Closing && self.unread() == 0)
    }

    /// Whether [`Connection::run`] has something to do now: a command, the end of them, or more of a listing.
    pub(super) fn can_run(&mut self) -> bool {
        !self.held && self.wants_to_run()
    }

    fn wants_to_run(&mut self) -> bool {
        self.may_list() || (self.may_run() && (self.lines.has_line() || self.input_ended))
    }

    fn may_run(&self) -> bool {
        self.phase == Phase::Serving && self.task.is_none() && self.unread() <= UNREAD_MAX
    }

    fn may_list(&self) -> bool {
        let has_part = match &self.task {
            Some(Task::List(_)) => true,
            Some(Task::Follow(following)) => following.has_news(),
            Some(Task::Wait(_)) | None => false,
        };
        self.phase == Phase::Serving && has_part && self.unread() <= UNREAD_PART_MAX
    }

    /// Whether it would be given something, and gets nothing since others do not read.
    pub(super) fn is_held(&mut self) -> bool {
        self.held && self.wants_to_run()
    }

    /// Gives it nothing while others have `not_read` so much already. An administrator is never held up.
    pub(super) fn hold_if(&mut self, not_read: bool) {
        self.held = self.read_only && not_read;
    }

    /// When it is closed if others want what it does not read: no administrator ever.
    pub(super) fn stalled_at(&self, limits: &Limits) -> Option<Instant> {
        (self.read_only && self.unread() > 0).then(|| self.active + limits.unread)
    }

    /// What poll(2) shall watch. A client whose commands are not carried out is not read from: what it sends on
    /// stays with it.
    pub(super) fn interest(&mut self) -> PollFlags {
        let mut flags = PollFlags::empty();
        if self.may_run() && !self.input_ended && !self.lines.has_line() {
            flags |= PollFlags::IN;
        }
        if self.unread() > 0 {
            flags |= PollFlags::OUT;
        }
        flags
    }

    /// Reads and writes what poll(2) found possible.
    pub(super) fn ready(&mut self, now: Instant, found: PollFlags, warnings: &mut Warnings) {
        if found.intersects(PollFlags::OUT) {
            self.flush(now);
        }
        if found.intersects(PollFlags::IN) {
            self.fill(now);
        }
        if found.intersects(PollFlags::ERR | PollFlags::NVAL) {
            self.phase = Phase::Over;
        }
        if found.intersects(PollFlags::HUP) {
            // It has closed both ways. What it had sent in whole lines still counts, but not what was to be done
            // after a reply that waits for something: that is not over.
            if self.is_open_ended() {
                if self.lines.has_line()
                    && let Some(count) = warnings.lost.hit(now)
                {
                    log::warn!(
                        "admin: {}: gone before what it waited for had happened: what it sent after that is not \
                         carried out{}",
                        self.peer,
                        before(count)
                    );
                }
                self.phase = Phase::Over;
                return;
            }
            if !self.input_ended && !self.lines.has_line() && !found.intersects(PollFlags::IN) {
                self.fill(now);
            }
        }
    }

    fn fill(&mut self, now: Instant) {
        let mut piece = [0; READ_SIZE];
        match self.socket.read(&mut piece) {
            Ok(0) => self.input_ended = true,
            Ok(n) => {
                let begins = !self.lines.is_half();
                self.lines.push(piece.get(..n).unwrap_or_default());
                if begins || self.lines.has_line() {
                    self.active = now;
                }
            }
            Err(error) if is_passing(&error) => {}
            Err(_) => self.phase = Phase::Over,
        }
    }

    fn flush(&mut self, now: Instant) {
        while self.unread() > 0 {
            match self
                .socket
                .write(self.out.get(self.written..).unwrap_or_default())
            {
                Ok(n) => {
                    self.active = now;
                    self.written += n;
                }
                Err(error) if is_passing(&error) => return,
                // Nobody reads any more; what it had asked for in whole lines is still done.
                Err(_) => {
                    self.written = self.out.len();
                    self.task = None;
                }
            }
        }
        self.written = 0;
        self.out = Vec::new();
    }

    /// Appends a reply and writes as much of it as the client takes now.
    pub(super) fn reply(&mut self, now: Instant, reply: &Reply) {
        reply.write_to(&mut self.out);
        self.flush(now);
    }

    /// Writes what there is to be told by now, such as why the daemon stops.
    pub(super) fn catch_up(&mut self, now: Instant, operator: &dyn Operator) {
        if self.may_list() {
            self.go_on(now, operator);
        }
    }

    /// What it waits for is over.
    pub(super) fn unpark(&mut self, now: Instant, reply: &Reply) {
        self.task = None;
        self.reply(now, reply);
    }

    /// Closes it once it has read what there is.
    pub(super) fn close(&mut self) {
        self.phase = Phase::Closing;
        self.task = None;
    }

    /// Carries out the commands that stand here, a few at most, so that every client has its turn.
    pub(super) fn run(&mut self, now: Instant, desk: &mut Desk<'_>) {
        for _ in 0..COMMANDS_A_TURN {
            let has_ended = self.follows_until().is_some_and(|until| until <= now);
            if self.held && !has_ended {
                return;
            }
            if self.may_list() || has_ended {
                self.go_on(now, desk.operator);
                continue;
            }
            if !self.may_run() {
                return;
            }
            match self.lines.next_line() {
                Some(Line::Text(line)) => self.command(now, &line, desk),
                Some(Line::TooLong) => {
                    self.reply(
                        now,
                        &Reply::error(format!("the line is too long: want at most {LINE_MAX} bytes")),
                    );
                }
                Some(Line::Unreadable) => {
                    self.reply(
                        now,
                        &Reply::error("the line is no text: want UTF-8 without control characters"),
                    );
                }
                None => {
                    if self.input_ended {
                        // A command that was cut off may read as another one: `delete R1` out of `delete R10`.
                        if self.lines.is_half() {
                            self.reply(
                                now,
                                &Reply::error("the last line has no line end and was not carried out"),
                            );
                        }
                        self.close();
                    }
                    return;
                }
            }
        }
    }

    fn follows_until(&self) -> Option<Instant> {
        match &self.task {
            Some(Task::Follow(following)) => Some(following.until()),
            _ => None,
        }
    }

    /// Writes more of the reply that is not over.
    fn go_on(&mut self, now: Instant, operator: &dyn Operator) {
        let room = self.written + UNREAD_PART_MAX;
        let is_over = match &mut self.task {
            Some(Task::List(listing)) => listing.write_part(operator, &mut self.out),
            Some(Task::Follow(following)) => following.write(now, &mut self.out, room),
            Some(Task::Wait(_)) | None => false,
        };
        if is_over {
            self.task = None;
        }
        self.flush(now);
    }

    fn command(&mut self, now: Instant, line: &str, desk: &mut Desk<'_>) {
        let Desk {
            operator,
            wake,
            warnings,
        } = desk;
        let operator = *operator;
        if line == handover::REQUEST && !self.is_read_only() {
            return self.hand_over(operator);
        }
        let (entry, command) = match grammar::parse(line) {
            Ok(None) => return,
            Ok(Some(parsed)) => parsed,
            Err(reply) => return self.reply(now, &reply),
        };
        let told = || -> String { line.trim().chars().take(LOGGED).collect() };
        if self.read_only
            && let Err(refusal) = apply::allowed_read_only(operator, entry, &command)
        {
            if entry.access == Access::Changes
                && let Some(count) = warnings.refused.hit(now)
            {
                let (line, why) = (told(), refusal.verdict());
                log::info!("admin: {}: {line}: {why}{}", self.peer, before(count));
            }
            return self.reply(now, &refusal);
        }
        match apply::apply(operator, command) {
            Outcome::Reply(reply) => {
                if entry.access == Access::Changes {
                    log::info!("admin: {}: {}: {}", self.peer, told(), reply.verdict());
                }
                self.reply(now, &reply);
            }
            Outcome::Wait(wait) => {
                let online = operator.is_online(&wait.cluster, &wait.name);
                if let Some(reply) = apply::check_wait(&wait, &online, false) {
                    return self.reply(now, &reply);
                }
                let until = now + wait.limit;
                self.task = Some(Task::Wait(Parked { wait, until }));
            }
            Outcome::List(listing) => self.task = Some(Task::List(listing)),
            Outcome::Watch { json } => {
                self.follow(now, Following::watch(now, operator, json, Arc::clone(wake)));
            }
            Outcome::Trace(trace) => {
                self.follow(now, Following::trace(now, operator, &trace, Arc::clone(wake)));
            }
            Outcome::Quit => self.close(),
        }
    }

    fn follow(&mut self, now: Instant, begun: Result<Following, Refusal>) {
        match begun {
            Ok(following) => self.task = Some(Task::Follow(following)),
            Err(refusal) => self.reply(now, &Reply::error(refusal)),
        }
    }

    /// Tells it that another one takes its place, as far as it reads at once.
    pub(super) fn give_way(&mut self, now: Instant) {
        let why = "all admin connections are taken, and this one has been idle longest: closed";
        self.reply(now, &Reply::error(why));
        self.phase = Phase::Over;
    }

    /// It is no client any more: a successor speaks over it with others of us.
    fn hand_over(&mut self, operator: &dyn Operator) {
        log::info!("admin: {}: asks to take over", self.peer);
        match self.socket.try_clone() {
            Ok(socket) => operator.take_over(socket.into()),
            Err(error) => log::warn!("admin: {}: cannot hand over: {error}", self.peer),
        }
        self.phase = Phase::Over;
    }

    /// When it is closed for silence, if nothing comes. One that waits for us is never silent, but what it follows has
    /// an end.
    pub(super) fn deadline(&mut self, limits: &Limits) -> Option<Instant> {
        if self.is_open_ended() {
            return self.follows_until();
        }
        let short = self.phase == Phase::Closing || self.lines.is_half();
        Some(self.active + if short { limits.half_line } else { limits.idle })
    }

    /// Closes it if its time is over.
    pub(super) fn expire(&mut self, now: Instant, limits: &Limits) {
        if self.is_open_ended() || self.deadline(limits).is_none_or(|deadline| now < deadline) {
            return;
        }
        if self.lines.is_half() && self.phase == Phase::Serving {
            let silence = limits.half_line.as_secs_f64();
            self.reply(
                now,
                &Reply::error(format!("half a line and no end of it for {silence} s: closed")),
            );
        }
        self.phase = Phase::Over;
    }
}

impl From<Connection> for OwnedFd {
    fn from(connection: Connection) -> Self {
        connection.socket.into()
    }
}

/// How a line of the log ends that stands for `count`.
fn before(count: u64) -> String {
    match count {
        0 | 1 => String::new(),
        _ => format!(" ({count} of the kind since this was last told)"),
    }
}

/// Errors after which a non-blocking socket is as good as before.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Who is at the other end, as it was when it connected.
#[derive(Debug, Clone, Copy)]
struct Peer(Option<(u32, i32)>);

impl Peer {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn of(socket: &UnixStream) -> Self {
        use std::os::fd::AsRawFd;

        // Not by a type that says that a pid is never 0: it is, for a process of another pid namespace.
        let mut found = libc::ucred {
            pid: 0,
            uid: 0,
            gid: 0,
        };
        let Ok(mut size) = libc::socklen_t::try_from(size_of::<libc::ucred>()) else {
            return Self(None);
        };
        #[expect(unsafe_code, reason = "the standard library does not offer SO_PEERCRED yet")]
        // SAFETY: the descriptor is open as long as `socket` is borrowed; the kernel writes at most `size` bytes
        // into `found`, which is as large and holds plain integers only.
        let failed = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut found).cast(),
                &raw mut size,
            )
        };
        Self((failed == 0).then_some((found.uid, found.pid)))
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn of(_: &UnixStream) -> Self {
        Self(None)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some((uid, pid)) => write!(f, "uid {uid}, pid {pid}"),
            None => f.write_str("unknown user"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_is_known_by_user_and_process() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let uid = rustix::process::getuid().as_raw();
        assert_eq!(
            Peer::of(&ours).to_string(),
            format!("uid {uid}, pid {}", std::process::id())
        );
        assert_eq!(Peer(None).to_string(), "unknown user");
    }
}
