//! What the dispatcher has to say to operators, in the words of the log.

use super::Cluster;
use crate::dispatch::outbox::Note;

/// Writes it.
pub(super) fn log(cluster: &Cluster, note: &Note) {
    let name = &cluster.name;
    match note {
        Note::TableFull { calls } => log::warn!(
            "cluster {name}: the session table is full: {calls} new call(s) served unbound; \
             <sessions max=…/> allows more"
        ),
        Note::WishesFull { sessions } => log::warn!(
            "cluster {name}: {sessions} session(s) of which nothing will be told when their member is lost: \
             <sessions max=…/> allows more, 1,024 bytes of tags are the most for one"
        ),
        Note::Overloaded { commands } => {
            log::warn!("cluster {name}: too many commands in flight: {commands} refused");
        }
        Note::TwoHomes { bound, also, calls } => log::warn!(
            "cluster {name}: a call bound to {bound} is at {also} too; {calls} such call(s) in all"
        ),
        Note::Garbage {
            member,
            excerpt,
            replies,
        } => log::warn!(
            "member {member} of {name}: {replies} reply(s) that can be none, such as \"{}\"",
            excerpt.escape_ascii()
        ),
        Note::Restarted { member } => log::warn!(
            "member {member} of {name}: it has been restarted while this daemon was not there; its calls are forgotten"
        ),
        Note::DeletesDropped { member, deletes } => log::warn!(
            "member {member} of {name}: too many deletes wait for it; {deletes} dropped, \
             those sessions will time out there"
        ),
    }
}
