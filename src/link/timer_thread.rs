//! The timer of a cluster: sends again, fails over, gives up, sweeps; earliest moment first. It also takes the
//! posts of the health thread, since both are events without a client.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::cluster::{Cluster, Out};
use crate::dispatch::session::MemberId;
use crate::rim::idle;

/// What a timer thread is told.
#[derive(Debug)]
pub enum Post {
    /// Something is due earlier than it thinks.
    Wake,
    /// A member's state changed, or its first probe failed.
    State {
        /// The member.
        member: MemberId,
        /// Whether it is online now.
        online: bool,
        /// Why.
        why: String,
    },
    /// The first probe of a member that was offline all along went wrong.
    Probed {
        /// The member.
        member: MemberId,
        /// How.
        why: String,
    },
    /// A member has been restarted and lost what it had at `last_good`.
    Restarted {
        /// The member.
        member: MemberId,
        /// Its last good heartbeat before.
        last_good: Instant,
    },
    /// The cluster is over.
    Stop,
}

/// Posts that may wait. A wake-up that finds the queue full is not needed; a state waits for a place.
pub const POSTS: usize = 1024;

/// Runs until it is told to stop.
pub fn run(cluster: &Arc<Cluster>, posts: &Receiver<Post>) {
    let mut out = Out::default();
    let mut next = None;
    loop {
        let post = idle(|| match next {
            Some(at) => posts.recv_deadline(at),
            None => posts.recv().map_err(|_| RecvTimeoutError::Disconnected),
        });
        match post {
            Ok(Post::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(Post::Wake) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Post::State { member, online, why }) => {
                cluster.act(&mut out, |now, core, out| {
                    core.set_online(now, member, online, why, out);
                });
            }
            Ok(Post::Probed { member, why }) => {
                cluster.act(&mut out, |now, core, out| core.set_probed(now, member, why, out));
            }
            Ok(Post::Restarted { member, last_good }) => {
                cluster.act(&mut out, |_, core, _| core.set_restarted(member, last_good));
            }
        }
        next = cluster.act(&mut out, |now, core, out| core.expire(now, out));
    }
}
