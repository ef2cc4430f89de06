//! The admin thread: accepts, reads, applies one command after another, writes. It blocks in one poll(2) over its
//! doors, its clients and the stop; no client makes it wait, whether it sends half a line, does not read, or asks to
//! be told when a member is gone.

use core::time::Duration;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::apply;
use super::connection::Connection;
use super::reply::Reply;
use crate::admin::operator::Operator;
use crate::rim::{self, Thread};

/// Clients at once, on all doors. Each costs a descriptor and at most a few kilobytes while it is silent.
pub const CLIENTS_MAX: usize = 128;
/// Of these, clients of read-only doors: monitoring must not lock the administrator out.
pub const READ_ONLY_CLIENTS_MAX: usize = 96;
/// Bytes that all clients together have not read. Beyond it the one with the most is closed.
const UNREAD_MAX: usize = 64 * 1024 * 1024;
/// Between two looks at what somebody waits for.
const WAIT_TICK: Duration = Duration::from_millis(100);
/// How long no client is accepted after the system had no descriptor for one.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// Between two warnings of that.
const WARNING_PAUSE: Duration = Duration::from_secs(60);

/// One admin socket.
#[derive(Debug)]
pub struct AdminDoor {
    /// Bound and listening.
    pub listener: UnixListener,
    /// Whether commands that change are refused.
    pub read_only: bool,
}

/// Listeners that take the place of those of the doors, each at its door's number.
type NewDoors = Arc<Mutex<Vec<Option<UnixListener>>>>;

/// The running thread.
#[derive(Debug)]
pub struct AdminHandle {
    stop: UnixStream,
    new_doors: NewDoors,
    thread: Thread,
}

impl AdminHandle {
    /// Has door `n` listen with `listener` from now on. Clients that are inside stay.
    pub fn replace(&self, n: usize, listener: UnixListener) {
        if let Some(place) = self.new_doors.lock().get_mut(n) {
            *place = Some(listener);
        }
        // When the pipe is full the thread is about to look anyway.
        let _ = (&self.stop).write(b"!");
    }

    /// Ends the thread and waits for it. A client that waits for a member is told; the doors are closed.
    pub fn stop(self) {
        // Fails only when the thread has left already.
        let _ = self.stop.shutdown(Shutdown::Both);
        self.thread.join();
    }
}

/// How long a silent client keeps its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// After part of a line.
    pub(super) half_line: Duration,
    /// After whole lines, or none at all: a prompt may stay open over night.
    pub(super) idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            half_line: Duration::from_secs(60),
            idle: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// Starts the admin thread on `doors`.
///
/// # Errors
/// When the system has no descriptor or no thread to give.
pub fn start(doors: Vec<AdminDoor>, operator: Arc<dyn Operator>) -> io::Result<AdminHandle> {
    start_with(doors, operator, Limits::default())
}

fn start_with(doors: Vec<AdminDoor>, operator: Arc<dyn Operator>, limits: Limits) -> io::Result<AdminHandle> {
    for door in &doors {
        door.listener.set_nonblocking(true)?;
    }
    let (stop, stopped) = UnixStream::pair()?;
    stop.set_nonblocking(true)?;
    let new_doors: NewDoors = Arc::new(Mutex::new(doors.iter().map(|_| None).collect()));
    let admin = Admin {
        doors,
        new_doors: Arc::clone(&new_doors),
        operator,
        limits,
        stopped,
        clients: Vec::new(),
        accept_from: None,
        warned: None,
    };
    let thread = rim::spawn("admin", || admin.run())?;
    Ok(AdminHandle {
        stop,
        new_doors,
        thread,
    })
}

struct Admin {
    doors: Vec<AdminDoor>,
    new_doors: NewDoors,
    operator: Arc<dyn Operator>,
    limits: Limits,
    stopped: UnixStream,
    clients: Vec<Connection>,
    /// While it lies ahead, nobody is accepted.
    accept_from: Option<Instant>,
    /// When it was last told that nobody can be accepted.
    warned: Option<Instant>,
}

/// What one poll(2) found, in the order of what it was asked.
struct Found {
    /// The end, or new doors.
    news: bool,
    doors: Vec<bool>,
    clients: Vec<PollFlags>,
}

impl Admin {
    fn run(mut self) {
        let mut waits_seen = rim::now();
        loop {
            let found = match self.poll(rim::now(), waits_seen) {
                Ok(found) => found,
                Err(error) => {
                    // Memory for the call is all that can be missing.
                    log::warn!(
                        "admin: poll: {error}: trying again in {} s",
                        ACCEPT_PAUSE.as_secs()
                    );
                    std::thread::sleep(ACCEPT_PAUSE);
                    continue;
                }
            };
            if found.news && !self.take_new_doors() {
                return self.farewell();
            }
            let now = rim::now();
            for (client, flags) in self.clients.iter_mut().zip(found.clients) {
                if !flags.is_empty() {
                    client.ready(now, flags);
                }
            }
            for client in &mut self.clients {
                client.run(now, &*self.operator);
                client.expire(now, &self.limits);
            }
            if now.duration_since(waits_seen) >= WAIT_TICK {
                waits_seen = now;
                self.look_at_waits(now);
            }
            self.close_the_fullest();
            self.clients.retain(|client| !client.is_over());
            for (n, ready) in found.doors.into_iter().enumerate() {
                if ready {
                    self.accept(now, n);
                }
            }
        }
    }

    fn poll(&mut self, now: Instant, waits_seen: Instant) -> io::Result<Found> {
        let timeout = self.timeout(now, waits_seen);
        let accepting = self.accept_from.is_none_or(|from| now >= from);
        let interests: Vec<PollFlags> = self.clients.iter_mut().map(Connection::interest).collect();

        let mut polled = vec![PollFd::new(&self.stopped, PollFlags::IN)];
        if accepting {
            polled.extend(
                self.doors
                    .iter()
                    .map(|door| PollFd::new(&door.listener, PollFlags::IN)),
            );
        }
        let asked = self.clients.iter().zip(interests);
        polled.extend(asked.map(|(client, flags)| PollFd::new(client.socket(), flags)));
        match rim::idle(|| poll(&mut polled, timeout.as_ref())) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }

        let mut found = polled.iter().map(PollFd::revents);
        let news = found.next().is_some_and(|flags| !flags.is_empty());
        let doors = found.by_ref().take(if accepting { self.doors.len() } else { 0 });
        let doors = doors.map(|flags| !flags.is_empty()).collect();
        Ok(Found {
            news,
            doors,
            clients: found.collect(),
        })
    }

    /// Listens where it is told to; `false` when it is told to end.
    fn take_new_doors(&mut self) -> bool {
        if !matches!(self.stopped.read(&mut [0; 16]), Ok(1..)) {
            return false;
        }
        for (door, new) in self.doors.iter_mut().zip(self.new_doors.lock().iter_mut()) {
            let Some(listener) = new.take() else { continue };
            match listener.set_nonblocking(true) {
                Ok(()) => door.listener = listener,
                Err(error) => log::error!("admin: cannot listen with a new socket: {error}"),
            }
        }
        true
    }

    /// How long nothing is due, if no descriptor becomes ready.
    fn timeout(&mut self, now: Instant, waits_seen: Instant) -> Option<Timespec> {
        if self.clients.iter_mut().any(Connection::can_run) {
            return Some(Timespec::default());
        }
        let waiting = self.clients.iter().any(|client| client.parked().is_some());
        let limits = self.limits;
        let deadlines = self
            .clients
            .iter_mut()
            .filter_map(|client| client.deadline(&limits));
        let due = deadlines
            .chain(waiting.then(|| waits_seen + WAIT_TICK))
            .chain(self.accept_from)
            .min()?;
        // A deadline that passes between two reads of the clock waits no time, and never a negative one.
        Timespec::try_from(due.saturating_duration_since(now)).ok()
    }

    /// Takes every client that stands at door `n`.
    fn accept(&mut self, now: Instant, n: usize) {
        let Some(door) = self.doors.get(n) else { return };
        let room = |clients: &[Connection]| {
            let watching = clients.iter().filter(|client| client.is_read_only()).count();
            clients.len() < CLIENTS_MAX && !(door.read_only && watching >= READ_ONLY_CLIENTS_MAX)
        };
        let had_room = room(&self.clients);
        // Bounded, so that a crowd at the door does not keep us from those inside.
        for _ in 0..CLIENTS_MAX {
            let is_room = room(&self.clients);
            if had_room && !is_room {
                // Some may have left since the poll: those who stand here are refused only if the next one, which
                // finds that out, leaves no room either.
                break;
            }
            let (socket, _) = match door.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The client left, or a signal came: the next is tried.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ConnectionAborted | ErrorKind::Interrupted
                    ) =>
                {
                    continue;
                }
                Err(error) => {
                    if self
                        .warned
                        .is_none_or(|last| now.duration_since(last) >= WARNING_PAUSE)
                    {
                        log::warn!("admin: accept: {error}: trying again each second");
                        self.warned = Some(now);
                    }
                    self.accept_from = Some(now + ACCEPT_PAUSE);
                    return;
                }
            };
            if !is_room {
                refuse(socket);
                continue;
            }
            match Connection::new(now, socket, door.read_only) {
                Ok(client) => self.clients.push(client),
                Err(error) => log::warn!("admin: a client was lost: {error}"),
            }
        }
        self.accept_from = None;
    }

    /// Answers the waits that are over.
    fn look_at_waits(&mut self, now: Instant) {
        for client in &mut self.clients {
            let Some(parked) = client.parked() else { continue };
            let wait = &parked.wait;
            let online = self.operator.is_online(&wait.cluster, &wait.name);
            let reply = apply::check_wait(wait, &online, true);
            let reply = reply.or_else(|| (now >= parked.until).then(|| apply::late_wait(wait)));
            if let Some(reply) = reply {
                client.unpark(now, &reply);
            }
        }
    }

    /// Holds the bound on what is written and not read.
    fn close_the_fullest(&mut self) {
        let total: usize = self.clients.iter().map(Connection::unread).sum();
        if total <= UNREAD_MAX {
            return;
        }
        if let Some((n, client)) = self
            .clients
            .iter()
            .enumerate()
            .max_by_key(|(_, client)| client.unread())
        {
            log::warn!(
                "admin: a client that does not read is closed, with {} bytes unread",
                client.unread()
            );
            self.clients.swap_remove(n);
        }
    }

    /// The daemon ends: whoever waits is told, as far as it reads at once.
    fn farewell(mut self) {
        let now = rim::now();
        for client in &mut self.clients {
            if client.parked().is_some() {
                client.unpark(now, &Reply::error("the daemon stops"));
            }
        }
    }
}

/// Tells a client that there is no room. It has not sent anything that would be lost.
fn refuse(mut socket: UnixStream) {
    let mut text = Vec::new();
    Reply::error("too many admin connections: want another one closed first").write_to(&mut text);
    // The buffer of a new socket takes one line at once; if not, closing says as much.
    let _ = socket
        .set_nonblocking(true)
        .and_then(|()| socket.write_all(&text));
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};
    use std::path::PathBuf;

    use super::super::fake::{Fake, Place, cluster, member};
    use super::super::lines::LINE_MAX;
    use super::super::reply::is_last;
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    /// An admin thread with two doors over a fake server.
    struct Bed {
        place: Place,
        fake: Arc<Fake>,
        handle: Option<AdminHandle>,
    }

    impl Bed {
        fn new() -> Self {
            Self::with(Fake::of_the_manual(), Limits::default())
        }

        fn with(fake: Fake, limits: Limits) -> Self {
            let place = Place::new();
            let door = |name, read_only| AdminDoor {
                listener: UnixListener::bind(place.path(name)).unwrap(),
                read_only,
            };
            let fake = Arc::new(fake);
            let doors = vec![door("admin", false), door("watch", true)];
            let handle = start_with(doors, Arc::<Fake>::clone(&fake), limits).unwrap();
            Self {
                place,
                fake,
                handle: Some(handle),
            }
        }

        fn path(&self) -> PathBuf {
            self.place.path("admin")
        }

        fn client(&self) -> Client {
            Client::at(&self.path())
        }
    }

    impl Drop for Bed {
        fn drop(&mut self) {
            self.handle.take().unwrap().stop();
        }
    }

    struct Client(BufReader<UnixStream>);

    impl Client {
        fn at(path: &PathBuf) -> Self {
            let socket = UnixStream::connect(path).unwrap();
            socket.set_read_timeout(Some(LONG)).unwrap();
            socket.set_write_timeout(Some(LONG)).unwrap();
            Self(BufReader::new(socket))
        }

        fn send(&mut self, text: impl AsRef<[u8]>) {
            self.0.get_mut().write_all(text.as_ref()).unwrap();
        }

        fn send_no_more(&mut self) {
            self.0.get_mut().shutdown(Shutdown::Write).unwrap();
        }

        /// One whole reply.
        fn reply(&mut self) -> String {
            let mut reply = String::new();
            loop {
                let start = reply.len();
                assert!(
                    self.0.read_line(&mut reply).unwrap() > 0,
                    "closed after {reply:?}"
                );
                if is_last(reply[start..].trim_end()) {
                    return reply;
                }
            }
        }

        fn ask(&mut self, line: &str) -> String {
            self.send(format!("{line}\n"));
            self.reply()
        }

        /// All until it is closed; a reset says that it was closed too.
        fn rest(&mut self) -> String {
            let mut rest = Vec::new();
            match self.0.read_to_end(&mut rest) {
                Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("not closed: {error}"),
                _ => String::from_utf8(rest).unwrap(),
            }
        }
    }

    #[test]
    fn commands_come_several_in_a_write_and_end_in_either_way() {
        let bed = Bed::new();
        let mut client = bed.client();
        client.send("VERSION\r\nls Nobody\n\r\n\nversion\nq\n");
        let version = format!("rtp_cluster {}\nOK\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(
            client.rest(),
            format!("{version}ERROR: Nobody: cluster not found\n{version}")
        );
    }

    #[test]
    fn who_has_sent_all_gets_all_replies_and_is_closed() {
        let bed = Bed::new();
        let mut client = bed.client();
        client.send("version\n".repeat(1_000));
        client.send_no_more();
        let version = format!("rtp_cluster {}\nOK\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(client.rest(), version.repeat(1_000));
    }

    #[test]
    fn a_last_line_that_was_cut_off_is_not_carried_out() {
        let bed = Bed::new();
        let mut client = bed.client();
        client.send("modify Supercluster#1 suspend RTPPROXY1\nmodify Supercluster#1 delete RTPPROXY1");
        client.send_no_more();
        assert_eq!(
            client.rest(),
            "OK\nERROR: the last line has no line end and was not carried out\n"
        );
        assert_eq!(*bed.fake.changes.lock(), ["suspend RTPPROXY1"]);
    }

    #[test]
    fn who_leaves_without_reading_is_still_obeyed() {
        let bed = Bed::new();
        let mut client = bed.client();
        client.send("ls\nmodify Supercluster#1 suspend RTPPROXY1\nmodify Supercluster#1 delete RTPPROXY2\n");
        drop(client);
        // Asked until seen: the other one is served when it is its turn.
        let mut other = bed.client();
        let until = rim::now() + LONG;
        while !other.ask("ls Supercluster#1").contains("DRAINING") {
            assert!(rim::now() < until, "{:?}", bed.fake.changes.lock());
        }
        assert_eq!(
            *bed.fake.changes.lock(),
            ["suspend RTPPROXY1", "delete RTPPROXY2 false"]
        );
    }

    #[test]
    fn lines_that_are_too_long_or_no_text_are_refused_and_the_connection_stays() {
        let bed = Bed::new();
        let mut client = bed.client();
        client.send(format!("modify C add {}\n", "a=b,".repeat(20_000)));
        assert_eq!(
            client.reply(),
            format!("ERROR: the line is too long: want at most {LINE_MAX} bytes\n")
        );
        client.send(b"ls \xff\n");
        assert!(client.reply().starts_with("ERROR: the line is no text"));
        assert!(client.ask("version").ends_with("OK\n"));
    }

    #[test]
    fn half_a_line_and_silence_ends_a_connection_and_whole_lines_do_not() {
        let usual = Limits::default();
        assert_eq!(usual.half_line, Duration::from_secs(60));
        assert!(usual.idle > Duration::from_secs(8 * 60 * 60));
        let half_line = Duration::from_millis(50);
        let bed = Bed::with(
            Fake::of_the_manual(),
            Limits {
                half_line,
                ..Limits::default()
            },
        );
        let (mut half, mut whole, mut fresh) = (bed.client(), bed.client(), bed.client());
        assert!(whole.ask("version").ends_with("OK\n"));
        half.send("version\nmodify Supercl");
        assert!(half.reply().ends_with("OK\n"));
        assert_eq!(
            half.rest(),
            "ERROR: half a line and then silence for 0.05 s: closed\n"
        );
        assert!(whole.ask("version").ends_with("OK\n"));
        assert!(fresh.ask("version").ends_with("OK\n"));
    }

    #[test]
    fn who_reads_slowly_gets_all_and_costs_the_others_nothing() {
        let members: Vec<_> = (0..1_500)
            .map(|n| member(&format!("R{n}"), n + 1, 1, 1))
            .collect();
        let bed = Bed::with(Fake::with(vec![cluster("C", "/c", members)]), Limits::default());
        let mut other = bed.client();
        let listing = other.ask("ls C");
        let mut slow = bed.client();
        slow.send("ls C\n".repeat(50));
        slow.send_no_more();
        for _ in 0..20 {
            assert!(other.ask("version").ends_with("OK\n"));
        }
        assert!(listing.len() > 200_000, "{}", listing.len());
        assert_eq!(slow.rest(), listing.repeat(50));
    }

    #[test]
    fn a_place_beyond_the_last_is_refused_and_a_place_that_is_left_is_free() {
        let bed = Bed::new();
        let mut clients: Vec<_> = (0..CLIENTS_MAX).map(|_| bed.client()).collect();
        for client in &mut clients {
            assert!(client.ask("version").ends_with("OK\n"));
        }
        assert!(
            bed.client()
                .rest()
                .starts_with("ERROR: too many admin connections")
        );
        assert!(clients[0].ask("version").ends_with("OK\n"));
        // Those that wait leave their places, too.
        for client in clients.iter_mut().skip(1) {
            client.send("wait Supercluster#1 RTPPROXY1 gone\n");
        }
        drop(clients);
        let until = rim::now() + LONG;
        let answered = || {
            let mut client = bed.client();
            client.send("version\n");
            client.reply().ends_with("OK\n")
        };
        while !answered() {
            assert!(rim::now() < until, "no place became free");
        }
    }

    #[test]
    fn monitoring_leaves_places_for_the_administrator() {
        let bed = Bed::new();
        let watch = bed.place.path("watch");
        let mut watching: Vec<_> = (0..READ_ONLY_CLIENTS_MAX).map(|_| Client::at(&watch)).collect();
        assert!(
            watching
                .iter_mut()
                .all(|client| client.ask("version").ends_with("OK\n"))
        );
        assert!(Client::at(&watch).rest().starts_with("ERROR: too many"));
        assert!(bed.client().ask("version").ends_with("OK\n"));
    }

    #[test]
    fn the_read_only_door_takes_no_change() {
        let bed = Bed::new();
        let mut client = Client::at(&bed.place.path("watch"));
        let refusal = "ERROR: modify suspend: not on the read-only socket\n";
        assert_eq!(client.ask("modify Supercluster#1 suspend RTPPROXY1"), refusal);
        assert!(client.ask("ls Supercluster#1").contains("status = ACTIVE"));
        assert!(bed.fake.changes.lock().is_empty());
    }

    #[test]
    fn what_stands_behind_a_wait_is_not_done_when_its_client_has_gone() {
        let bed = Bed::new();
        let mut waiter = bed.client();
        waiter.send(
            "modify Supercluster#1 suspend RTPPROXY1\nwait Supercluster#1 RTPPROXY1 gone\n\
             modify Supercluster#1 resume RTPPROXY1\n",
        );
        drop(waiter);
        // The thread sees what has become of every client before each of these.
        let mut other = bed.client();
        for _ in 0..3 {
            assert!(other.ask("version").ends_with("OK\n"));
        }
        assert_eq!(*bed.fake.changes.lock(), ["suspend RTPPROXY1"]);
    }

    #[test]
    fn a_wait_holds_up_its_own_connection_and_no_other() {
        let bed = Bed::new();
        let (mut waiter, mut other) = (bed.client(), bed.client());
        waiter.send("wait Supercluster#1 RTPPROXY2 gone\nversion\n");
        waiter.send_no_more();
        assert_eq!(other.ask("wait Supercluster#1 RTPPROXY1 online"), "OK\n");
        let late = "ERROR: RTPPROXY2: not gone after 0.05 s\n";
        assert_eq!(other.ask("wait Supercluster#1 RTPPROXY2 gone -t 0.05"), late);
        assert_eq!(other.ask("modify Supercluster#1 delete RTPPROXY2 now"), "OK\n");
        assert_eq!(
            waiter.rest(),
            format!("OK\nrtp_cluster {}\nOK\n", env!("CARGO_PKG_VERSION"))
        );
    }

    #[test]
    fn changes_are_applied_one_after_another_and_seen_by_all() {
        let bed = Arc::new(Bed::new());
        let threads: Vec<_> = (0..100)
            .map(|n| {
                let bed = Arc::clone(&bed);
                let body = move || {
                    let pairs = format!(
                        "name=N{n},protocol=udp,address=127.0.0.2:{},capacity=1,weight=1",
                        n + 1
                    );
                    let mut client = bed.client();
                    assert_eq!(client.ask(&format!("modify Supercluster#2 add {pairs}")), "OK\n");
                    drop(client);
                    assert!(
                        bed.client()
                            .ask("ls Supercluster#2")
                            .contains(&format!("name = N{n}\n"))
                    );
                };
                std::thread::Builder::new().spawn(body).unwrap()
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(bed.fake.changes.lock().len(), 100);
    }

    #[test]
    fn a_stop_tells_those_who_wait_and_closes_the_doors() {
        let mut bed = Bed::new();
        let (mut waiter, mut idle) = (bed.client(), bed.client());
        waiter.send("wait Supercluster#1 RTPPROXY1 gone\n");
        // Whoever is answered now has come after the wait.
        assert!(idle.ask("version").ends_with("OK\n"));
        assert!(idle.ask("version").ends_with("OK\n"));
        bed.handle.take().unwrap().stop();
        assert_eq!(waiter.rest(), "ERROR: the daemon stops\n");
        assert_eq!(idle.rest(), "");
        assert!(UnixStream::connect(bed.path()).is_err());
        bed.handle = Some(start(Vec::new(), Arc::<Fake>::clone(&bed.fake)).unwrap());
    }
}
