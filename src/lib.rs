//! rtp_cluster stands between SIP servers and their RTPproxies. To a SIP server it is one RTPproxy; behind that
//! one socket it spreads new calls over many and keeps each call on its own.
//!
//! # The way of one command
//!
//! ```text
//!  SIP server     the thread of the cluster, turn by turn                 member (RTPproxy)
//!  ─────────┐   ┌──────────────────────────────────────────┐             ┌────────────────┐
//!           │   │ wait: something is ready, or an alarm due │             │                │
//!   connect │   │   links: replies ── Dispatch::reply ──┐   │             │                │
//!   write ──┼──▶│   alarms ────────── Dispatch::expire ─┤   │             │                │
//!           │   │   front: commands ─ Dispatch::command ┤   │ link: send, never wait       │
//!           │   │   settle: carry out what they put     │   │─────────────┼─▶ U c1 … ─┐    │
//!   read  ◀─┼───│           into the outbox ◀───────────┘   │◀────────────┼── 35000 … ◀    │
//!  ─────────┘   └──────────────────────────────────────────┘             └────────────────┘
//! ```
//!
//! 1. [`cluster::front`]: the loop reads what a client sends, over whatever transport the control socket has: the first
//!    read of a UNIX connection, a line of a kept one, a datagram. What is a command is decided at once; a client that
//!    would have to be waited for is a place in a table, a watched descriptor and an alarm. A repeated datagram ends here.
//! 2. [`protocol`]: the bytes become a [`protocol::command::Command`], a view that borrows from them, or the error
//!    that RTPproxy would give.
//! 3. [`dispatch`]: the session table says where the call's home is, [`dispatch::route`] what that means for the
//!    command, [`dispatch::choose`] which member a new call gets. The transaction goes into the slab of commands
//!    in flight, with the client in it.
//! 4. [`link`]: the command goes out to the member. The loop takes the next one.
//! 5. The link reads the answer in a later turn. The dispatcher finds the transaction by its cookie, judges the reply,
//!    binds the call; the loop writes to the client: one write, once. On a kept connection the reply may have to wait
//!    for those of earlier commands ([`client::order`]); the last of these takes them all along.
//! 6. When no answer comes, an alarm has the dispatcher send again, try the next member, or give up.
//!
//! [`dispatch::Dispatch`] is pure: events in, actions out, no socket and no clock. [`cluster::Cluster`] holds it under
//! one lock, and its loop carries the actions out when the lock is free. So each story of loss, delay and restart is a
//! unit test.
//!
//! In one turn replies of members come first, since they free clients; then alarms; then what other threads want; then
//! notifications; then new commands, in batches. What up to 16 commands come to is carried out together. A descriptor
//! with nothing to say costs a turn nothing.
//!
//! # Rooms
//!
//! Each room uses those below it, as this table says, and nothing above; a room within another is one of its own where
//! it has a row. A test reads the table. Files of one room do not import each other in a circle either.
//!
//! | room | may use |
//! |---|---|
//! | `bin` | `status`, `console`, `server`, `daemon` |
//! | `status` | `console`, `admin`, `dispatch`, `daemon`, `sockets`, `rim` |
//! | `console` | `admin`, `daemon`, `dispatch`, `config`, `sockets`, `rim` |
//! | `server` | `admin`, `cluster`, `health`, `link`, `state`, `store`, `discovery`, `dispatch`, `daemon`, `sockets`, `config`, `rim` |
//! | `admin` | `dispatch`, `sockets`, `config`, `rim` |
//! | `cluster` | `health`, `link`, `client`, `dispatch`, `protocol`, `sockets`, `config`, `rim` |
//! | `health` | `link`, `protocol`, `config`, `rim` |
//! | `link` | `protocol`, `config`, `rim` |
//! | `state` | `dispatch`, `config`, `rim` |
//! | `store` | `dispatch`, `config`, `rim` |
//! | `discovery` | `config`, `rim` |
//! | `client` | `rim` |
//! | `dispatch` | `protocol`, `config`, `rim` |
//! | `daemon` | `sockets`, `config`, `rim` |
//! | `protocol` | `rim` |
//! | `sockets` | `config`, `rim` |
//! | `config` | `rim` |
//! | `rim` | |
//!
//! # Threads
//!
//! | thread | file | waits in | ended by |
//! |---|---|---|---|
//! | main | `daemon/signal_thread.rs` | signals | SIGTERM |
//! | `cluster-N` | `cluster/cluster_thread.rs` | readiness of all its descriptors, or the next alarm | a message |
//! | `health` | `health/health_thread.rs` | readiness of its probes' sockets, or the next alarm | a message |
//! | `admin` | `admin/admin_thread.rs` | poll over the admin sockets, their connections, and news for them | its socket pair |
//! | `state` | `state/state_thread.rs` | its channel, or until something is due; only with `-S` | a message |
//! | `store-N` | `store/store_thread.rs` | its channel, or the server of a `<sessions store=…/>`, for a quarter of a second | a message |
//! | `names-N` | `rim/names_thread.rs` | its channel, or a look-up; four at most, from the first name on | its channel's end; a look-up is not waited for |
//! | `finder` | `server/finder_thread.rs` | its channel, or the next name to look up again; from the first `<rtpproxies>` on | a message |
//! | `takeover` | `server/takeover_thread.rs` | while a successor takes over: its words | shutdown of its connection |
//! | `ending` | `daemon/ending_thread.rs` | a second SIGTERM, which ends the daemon whatever the others do; from the start on | shutdown of its socket pair |
//!
//! Others reach a loop through its mailbox ([`rim::readiness::Mailbox`]): a bounded crossbeam channel and a wake-up. The
//! health thread posts what it finds to the clusters; what the admin thread changes and needs a descriptor for is done by
//! the loop, and waited for. All threads are told to end, and joined, by [`server::Server`].
//!
//! `rtp_cluster_client` has two, beside the one of its keys: `console/signal_thread.rs` waits for the signal that ends it,
//! and `console/top/look_thread.rs` asks the daemon for what the live view shows.
//!
//! `rtp_cluster_status` is another process, which reads the admin socket: `sampler` (`status/sampler_thread.rs`) asks once a
//! second, `http-N` (`status/http_thread.rs`) answer from what it saw last.
//!
//! Whatever blocks a thread for news stands inside of [`rim::idle`], so that the watchdog tells one that waits from one
//! that hangs.
//!
//! # Locks
//!
//! Taken in this order only:
//!
//! 1. `server`: the lock of changes, which one reload or admin command holds from beginning to end, files, names and
//!    loops that it waits for included; no thread that serves commands ever takes it;
//! 2. `server`: the configuration file as it was read last, the list of clusters, and the parts of one that may be handed on;
//! 3. `cluster`: whether first probes are awaited, then the dispatcher of one cluster, and never two of them: held over no
//!    I/O and no log call. It is the only lock on the way of a command, and nobody else holds it for long;
//! 4. `rim`: what the pool of names and the watchdog keep, and who listens to a feed of news.
//!
//! Those of changes, of the file, of a dispatcher, of the sockets and of the log are [`rim::lock::Ranked`]: a debug build, as
//! the tests are, panics where one is taken out of its order.
//!
//! # Absent on purpose
//!
//! No async runtime. No thread that waits for a member, for a client, or for time. No configuration that is searched for.

pub mod admin;
pub mod client;
pub mod cluster;
pub mod config;
pub mod console;
pub mod daemon;
pub mod discovery;
pub mod dispatch;
pub mod health;
pub mod link;
pub mod protocol;
pub mod rim;
pub mod server;
pub mod sockets;
pub mod state;
pub mod status;
pub mod store;
