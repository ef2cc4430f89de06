//! rtp_cluster stands between SIP servers and their RTPproxies. To a SIP server it is one RTPproxy; behind that
//! one socket it spreads new calls over many and keeps each call on its own.
//!
//! # The way of one command
//!
//! ```text
//!  SIP server          cluster thread                                   member (RTPproxy)
//!  ─────────┐   ┌───────────────────────────┐                          ┌────────────────┐
//!   connect │   │ accept, read              │                          │                │
//!   write ──┼──▶│ framing: whole?           │   link: send, never wait │                │
//!           │   │ Dispatch::command         │──────────────────────────┼─▶ U c1 … ─┐    │
//!           │   │   parse, home, route      │                          │           │    │
//!           │   └───────────────────────────┘                          │           │    │
//!           │   ┌─ reply thread ────────────┐                          │           │    │
//!   read  ◀─┼───│ Dispatch::reply           │◀─────────────────────────┼── 35000 … ◀    │
//!           │   │   match, judge, bind      │                          │                │
//!  ─────────┘   └───────────────────────────┘                          └────────────────┘
//! ```
//!
//! 1. [`front`]: the cluster thread reads what a client sends, over whatever transport the control socket has: the
//!    first read of a UNIX connection, a line of a kept one, a datagram. What is a command is served at once; a client
//!    that would have to be waited for goes to the slow thread. A repeated datagram ends here.
//! 2. [`protocol`]: the bytes become a [`protocol::command::Command`], a view that borrows from them, or the error
//!    that RTPproxy would give.
//! 3. [`dispatch`]: the session table says where the call's home is, [`dispatch::route`] what that means for the
//!    command, [`dispatch::choose`] which member a new call gets. The transaction goes into the slab of commands
//!    in flight, with the client in it.
//! 4. [`link`]: the command goes out to the member. The cluster thread is done and takes the next one.
//! 5. The member's reply thread reads the answer. The dispatcher finds the transaction by its cookie, judges the
//!    reply, binds the call; the reply thread writes to the client: one write, once. On a kept connection the reply
//!    may have to wait for those of earlier commands; who answers the last of these writes them all.
//! 6. When no answer comes, the timer thread sends again, tries the next member, or gives up, all within 3 s.
//!
//! [`dispatch::Dispatch`] is pure: events in, actions out, no socket and no clock. [`cluster::Cluster`] holds it
//! under one lock and carries the actions out when the lock is free. So each story of loss, delay and restart is
//! a unit test.
//!
//! # Threads
//!
//! | thread | file | waits in | ended by |
//! |---|---|---|---|
//! | main | `daemon/signal_thread.rs` | signals | SIGTERM |
//! | `cluster-N` | `front/cluster_thread.rs` | poll over the control socket and the connections in use | its socket pair |
//! | `slow-N` | `front/slow_thread.rs` | poll over clients that are slow, idle, or do not read; none over UDP | its socket pair |
//! | `timer-N` | `link/timer_thread.rs` | its channel, until the earliest alarm | a message |
//! | `reply-N.M` | `link/udp.rs`, `link/stream.rs`, `link/unix.rs` | a member's socket | shutdown of it |
//! | `dns-N.M` | `link/resolver_thread.rs` | its condition variable, or the look-up of a member's name | its flag; a look-up is not waited for |
//! | `relay-N` | `notify/relay_thread.rs` | poll over members that notify, and sockets of the SIP server | its socket pair |
//! | `health` | `health/health_thread.rs` | its channel, until the next probe | a message |
//! | `upkeep` | `server/upkeep_thread.rs` | its channel, until a link that was replaced is over | a message |
//! | `admin` | `admin/admin_thread.rs` | poll over the admin sockets and their clients | its socket pair |
//!
//! `rtp_cluster_status` is another process, which reads the admin socket: `sampler` (`status/sampler_thread.rs`) asks once a
//! second, `http-N` (`status/http_thread.rs`) answer from what it saw last.
//!
//! Health and timers talk over bounded crossbeam channels: the health thread posts a member's state to the timer
//! thread of its cluster; results of probes come back to the health thread from whoever read them. All these are
//! told to end, and joined, by [`server::Server`].
//!
//! Whatever blocks a thread for news stands inside of [`rim::idle`], so that the watchdog tells one that waits from one
//! that hangs.
//!
//! # Locks
//!
//! Taken in this order only, each held over no I/O and no log call:
//!
//! 1. `server`: the lock of changes (reload, admin commands), then the list of clusters;
//! 2. `cluster`: the dispatcher of one cluster, and never two of them;
//! 3. `relay`: who relays a cluster's notifications;
//! 4. `link`: a link's own state; or `client`: the replies of a kept connection, those kept for repeats. A stream link
//!    and a kept connection alone hold theirs over a send, one that never waits, since the order of the queue must be
//!    that of the wire.
//!
//! # Absent on purpose
//!
//! No async runtime. No thread that waits for a member on behalf of one client while others queue. No configuration
//! that is searched for. No retry that a time-out does not end.

pub mod admin;
pub mod cluster;
pub mod config;
pub mod console;
pub mod daemon;
pub mod dispatch;
pub mod front;
pub mod health;
pub mod link;
pub mod notify;
pub mod protocol;
pub mod rim;
pub mod server;
pub mod sockets;
pub mod status;
