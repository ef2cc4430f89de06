//! Part c: one of four members falls silent, and is killed, under 100 new calls a second. No new call may be lost,
//! and nobody whose call is on another member may notice.

use std::collections::VecDeque;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::clients::{call_id, exchange};
use crate::field::Field;
use crate::measure::{Table, micros, percentile};
use crate::support::wait;

const MEMBERS: usize = 4;
/// New calls a second.
const NEW_RATE: u32 = 100;
/// Commands a second for calls that are there already.
const STEADY_RATE: u32 = 500;
/// Calls that are there already.
const STEADY_CALLS: u64 = 400;
/// How long a new call lives.
const CALL_TIME: Duration = Duration::from_secs(1);
/// Workers, enough for every command of a second to wait its whole time-out.
const WORKERS: usize = 64;
/// Undisturbed time before the fault.
const CALM: Duration = Duration::from_secs(8);
/// How long the fault lasts: it ends just after a look at the member, which comes every other second.
const OUTAGE: Duration = Duration::from_millis(8_100);
/// The member whose turn it is.
const VICTIM: usize = 0;

/// What happens to the member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Stopped,
    Killed,
}

/// One command, when it was due and how it went.
struct Event {
    at: Instant,
    took: Duration,
    /// The media address of the answer; none when it was refused or failed.
    member: Option<String>,
}

/// Runs both faults.
pub fn run(table: &mut Table) {
    for fault in [Fault::Stopped, Fault::Killed] {
        println!("\nc: a member of {MEMBERS} is {fault:?} at {NEW_RATE} new calls a second");
        one(fault, table);
    }
}

fn one(fault: Fault, table: &mut Table) {
    let mut field = Field::new(MEMBERS);
    let control = field.control().to_owned();
    let victim = field.members[VICTIM].media.clone();
    let steady: Vec<String> = (0..STEADY_CALLS)
        .map(|call| call_id(0, call))
        .filter(|id| {
            let event = ask(
                &control,
                &format!("U {id} 192.0.2.10 4000 from-tag;1"),
                Instant::now(),
            );
            event.member.expect("all members are well") != victim
        })
        .collect();

    let (stop, new, old) = (
        AtomicBool::new(false),
        Mutex::new(Vec::new()),
        Mutex::new(Vec::new()),
    );
    let ending = Mutex::new(VecDeque::new());
    let (begin, stop, new, old, ending) = (Instant::now(), &stop, &new, &old, &ending);
    let (new_ticket, old_ticket) = (&AtomicU64::new(0), &AtomicU64::new(0));
    let (control, steady) = (&*control, &*steady);
    let (broken, mended) = thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(move || {
                paced(begin, NEW_RATE, new_ticket, stop, |call, due| {
                    let id = call_id(1, call);
                    let event = ask(control, &format!("U {id} 192.0.2.10 4000 from-tag;1"), due);
                    new.lock().unwrap().push(event);
                    ending.lock().unwrap().push_back((due + CALL_TIME, id));
                });
            });
            // A call ends a second after its beginning; the last of them after the stop.
            scope.spawn(move || {
                loop {
                    let first = ending.lock().unwrap().pop_front();
                    match first {
                        Some((due, id)) => {
                            thread::sleep(due.saturating_duration_since(Instant::now()));
                            ask(control, &format!("D {id} from-tag"), due);
                        }
                        None if stop.load(Ordering::Relaxed) => break,
                        None => thread::sleep(Duration::from_millis(20)),
                    }
                }
            });
        }
        for _ in 0..8 {
            scope.spawn(move || {
                paced(begin, STEADY_RATE, old_ticket, stop, |number, due| {
                    let id = &steady[usize::try_from(number).expect("a small number") % steady.len()];
                    let command = format!("L {id} 192.0.2.20 4002 from-tag;1 to-tag;1");
                    let event = ask(control, &command, due);
                    old.lock().unwrap().push(event);
                });
            });
        }
        thread::sleep(CALM);
        let broken = Instant::now();
        match fault {
            Fault::Stopped => field.members[VICTIM].stop(),
            Fault::Killed => field.members[VICTIM].kill(),
        }
        thread::sleep(OUTAGE);
        match fault {
            Fault::Stopped => field.members[VICTIM].resume(),
            Fault::Killed => field.members[VICTIM].restart(),
        }
        let mended = Instant::now();
        wait::until_true(
            "new calls on the member that is back",
            Duration::from_secs(20),
            || {
                let came_back = |e: &Event| e.at > mended && e.member.as_deref() == Some(&victim);
                new.lock().unwrap().iter().any(came_back)
            },
        );
        stop.store(true, Ordering::Relaxed);
        (broken, mended)
    });
    let new = std::mem::take(&mut *new.lock().unwrap());
    let old = std::mem::take(&mut *old.lock().unwrap());
    report(fault, &new, &old, (begin, broken, mended), &victim, table);
    table.at_most(
        &format!("{fault:?}: sessions left behind on members"),
        left_behind(&field, fault),
        0.0,
        "",
    );
}

fn report(
    fault: Fault,
    new: &[Event],
    old: &[Event],
    (begin, broken, mended): (Instant, Instant, Instant),
    victim: &str,
    table: &mut Table,
) {
    let lost = new.iter().filter(|e| e.member.is_none()).count();
    let slowest = new.iter().map(|e| e.took).max().expect("calls were made");
    let back = new
        .iter()
        .filter(|e| e.at > mended && e.member.as_deref() == Some(victim))
        .map(|e| e.at)
        .min();
    let back = back.expect("this was waited for") - mended;
    let undisturbed = |e: &&Event| e.at > begin + Duration::from_secs(1) && e.at < broken;
    let disturbed = |e: &&Event| e.at >= broken && e.at < mended;
    let calm = percentile(
        &mut old.iter().filter(undisturbed).map(|e| e.took).collect::<Vec<_>>(),
        0.99,
    );
    let rough = percentile(
        &mut old.iter().filter(disturbed).map(|e| e.took).collect::<Vec<_>>(),
        0.99,
    );
    let failed = old.iter().filter(|e| e.member.is_none()).count();
    let row = |what: &str| format!("{fault:?}: {what}");
    table.note(&row("new calls"), count(new.len()), "");
    table.at_most(&row("new calls lost"), count(lost), 0.0, "");
    table.at_most(
        &row("slowest answer to a new call"),
        slowest.as_secs_f64() * 1e3,
        500.0,
        "ms",
    );
    table.at_most(
        &row("commands of other members' calls failed"),
        count(failed),
        0.0,
        "",
    );
    table.note(&row("their p99 before the fault"), micros(calm), "us");
    table.at_most(
        &row("their p99 during it, to that"),
        rough.as_secs_f64() / calm.as_secs_f64(),
        2.0,
        "x",
    );
    table.at_most(
        &row("first new call on the member again"),
        back.as_secs_f64(),
        3.0,
        "s",
    );
}

/// Calls `work` with rising numbers, each when it is due; all who share `ticket` share the pace.
fn paced(begin: Instant, rate: u32, ticket: &AtomicU64, stop: &AtomicBool, work: impl Fn(u64, Instant)) {
    while !stop.load(Ordering::Relaxed) {
        let number = ticket.fetch_add(1, Ordering::Relaxed);
        let due = begin + Duration::from_secs(number) / rate;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        work(number, due);
    }
}

/// Sends a command; its time counts from when it was due, so that waiting for a free worker is no excuse.
fn ask(control: &Path, command: &str, due: Instant) -> Event {
    let mut reply = [0; 256];
    let reply = exchange(control, command.as_bytes(), &mut reply);
    let took = due.elapsed();
    let member = reply.ok().and_then(|reply| {
        let (port, address) = std::str::from_utf8(reply).ok()?.trim_end().split_once(' ')?;
        port.parse::<u16>().ok().filter(|port| *port != 0)?;
        Some(address.to_owned())
    });
    Event {
        at: due,
        took,
        member,
    }
}

/// Waits until the calls' deletes have been carried out, also those that were late, and counts what stays.
fn left_behind(field: &Field, fault: Fault) -> f64 {
    let kept = match fault {
        Fault::Stopped => STEADY_CALLS,
        // The killed member took its share with it.
        Fault::Killed => 0,
    };
    let alive = || -> u64 { field.members.iter().map(|m| active_sessions(&m.address)).sum() };
    let start = Instant::now();
    loop {
        let alive = match fault {
            Fault::Stopped => alive(),
            Fault::Killed => active_sessions(&field.members[VICTIM].address),
        };
        if alive == kept || start.elapsed() > Duration::from_secs(10) {
            return count(usize::try_from(alive.abs_diff(kept)).expect("a small number"));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn active_sessions(member: &str) -> u64 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .expect("a socket takes a time-out");
    let mut reply = [0; 1024];
    // The socket is new each time, and the member keeps its answers by sender and cookie.
    socket.send_to(b"count Ib", member).expect("a member has a port");
    let length = socket.recv(&mut reply).expect("a member answers");
    let reply = String::from_utf8_lossy(&reply[..length]).into_owned();
    let line = reply
        .lines()
        .find_map(|l| l.strip_prefix("active sessions: "))
        .expect("a count");
    line.parse().expect("a number")
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).expect("a small number"))
}
