//! What a predecessor wrote, put into the clusters that there are now. Pure.

use std::collections::HashMap;
use std::time::Instant;

use super::encode::{Moment, Print, Record, Tags};
use super::recorder::print;
use crate::dispatch::Dispatch;
use crate::dispatch::journal::Known;
use crate::dispatch::rewrite::{Addressee, Notice};
use crate::dispatch::session::{MemberId, Session};

/// Whose each record is: clusters by their place in some list, and their members.
#[derive(Debug)]
pub struct Past {
    /// The wall clock's time.
    here: Moment,
    clusters: HashMap<Print, usize>,
    members: HashMap<Print, (usize, MemberId)>,
}

impl Past {
    /// Nobody's yet; the wall clock says `here`.
    pub fn new(here: Moment) -> Self {
        Self {
            here,
            clusters: HashMap::new(),
            members: HashMap::new(),
        }
    }

    /// One more cluster, at that place of the list, with the members that it has. Nothing is bound there yet.
    pub fn add<C, L: Clone>(&mut self, place: usize, core: &mut Dispatch<C, L>) {
        core.begin_earlier();
        let name = core.rules().name.clone();
        self.clusters.insert(Print::cluster(name.as_str()), place);
        for member in core.members_in_order() {
            let print = print(name.as_str(), &member.config);
            self.members.insert(print, (place, member.id));
        }
    }

    /// The place of the cluster that a record is of, and its member. Nothing where it is there no more.
    pub fn whose(&self, record: &Record<'_>) -> Option<(usize, Option<MemberId>)> {
        match record {
            Record::Forgotten { cluster, .. }
            | Record::Cleared { cluster }
            | Record::Wish {
                session: Tags { cluster, .. },
                ..
            }
            | Record::WishTaken {
                session: Tags { cluster, .. },
            } => Some((*self.clusters.get(cluster)?, None)),
            Record::Bound(bound) => self.member(bound.member),
            Record::Cut { member, .. }
            | Record::Deferred { member, .. }
            | Record::Settled { member, .. }
            | Record::Created { member, .. } => self.member(*member),
        }
    }

    fn member(&self, print: Print) -> Option<(usize, Option<MemberId>)> {
        let (place, id) = self.members.get(&print)?;
        Some((*place, Some(*id)))
    }

    /// Puts a record into the cluster whose it is, in the order in which they were written.
    pub fn restore<C, L: Clone>(&self, now: Instant, record: &Record<'_>, core: &mut Dispatch<C, L>) {
        let member = self.whose(record).and_then(|(_, member)| member);
        match (*record, member) {
            (Record::Bound(bound), Some(member)) => core.restore(
                now,
                Known {
                    call_id: bound.call_id,
                    member,
                    born: self.here.since(bound.born),
                    used: self.here.since(bound.used),
                    ended: bound.ended,
                },
            ),
            (Record::Forgotten { call_id, .. }, _) => core.restore_forgotten(call_id),
            (Record::Cut { before, .. }, Some(member)) => {
                core.restore_cut(now, member, self.here.since(before));
            }
            (Record::Cleared { .. }, _) => core.restore_cleared(),
            (Record::Wish { session, to, text }, _) => {
                let notice = Addressee::read(to).map(|to| Notice {
                    to,
                    text: text.into(),
                });
                core.restore_wish(session_of(&session), notice.as_ref());
            }
            (Record::WishTaken { session }, _) => core.restore_unwished(session_of(&session)),
            (Record::Deferred { expires, text, .. }, Some(member)) => {
                core.restore_deferred(now, member, expires.since(self.here), text);
            }
            (Record::Settled { text, .. }, Some(member)) => core.restore_settled(member, text),
            (Record::Created { at, count, .. }, Some(member)) => {
                core.restore_created(now, member, count, self.here.since(at));
            }
            // Of a member that is there no more.
            (_, None) => {}
        }
    }
}

fn session_of<'a>(tags: &Tags<'a>) -> Session<'a> {
    Session {
        call_id: tags.call_id,
        from: tags.from,
        to: tags.to,
    }
}
