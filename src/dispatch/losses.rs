//! Members that are lost with their calls: when one has been offline for as long as `on_member_loss` says, the SIP
//! server is told what the member would have told it of each session that asked for that. Pure.
//!
//! - A member that is back in time has told nothing, and nothing is told for it.
//! - One that is taken out while it is offline will not come back: its calls are told of at once. One that is taken
//!   out while it serves keeps its calls going, and has them time out by itself.
//! - [`PER_STEP`] notifications each [`STEP`], so that the SIP server is not made to end thousands of calls in one
//!   moment.

use core::time::Duration;
use std::collections::VecDeque;
use std::time::Instant;

use super::Dispatch;
use super::attempt::Transaction;
use super::outbox::{Note, Outbox};
use super::rewrite::{self, Notice};
use super::session::{MemberId, SHARDS, Session};
use crate::protocol::command::{self, Command, Verb};
use crate::rim::throttle::Throttle;

/// Notifications in one step: with [`STEP`], 200 a second.
pub const PER_STEP: usize = 10;
/// Parts of the session table that one step looks at: at a million calls it holds the lock for two milliseconds.
const SHARDS_PER_STEP: usize = 8;
/// Between two steps.
pub const STEP: Duration = Duration::from_millis(50);

/// A member that is offline.
#[derive(Debug, Clone, Copy)]
struct Away {
    member: MemberId,
    since: Instant,
    /// The part of the session table that is looked at next; behind the last one all is told.
    shard: usize,
}

/// Who is away, and what is still to be told.
#[derive(Debug, Default)]
pub(super) struct Losses {
    away: Vec<Away>,
    /// Of members that were taken out.
    owed: VecDeque<Notice>,
    next_step: Option<Instant>,
    /// For wishes that there was no room for.
    forgotten: Throttle,
}

impl Losses {
    /// It went offline.
    pub(super) fn lost(&mut self, now: Instant, member: MemberId) {
        if !self.away.iter().any(|away| away.member == member) {
            self.away.push(Away {
                member,
                since: now,
                shard: 0,
            });
        }
    }

    /// It is back, or not a member any more.
    pub(super) fn found(&mut self, member: MemberId) {
        self.away.retain(|away| away.member != member);
    }

    /// When there is something to tell, if members are given up `after` a time.
    fn due(&self, after: Duration) -> Option<Instant> {
        let away = self.away.iter().filter(|away| away.shard < SHARDS);
        let first = away.map(|away| away.since + after).min();
        if self.owed.is_empty() {
            first.map(|first| self.next_step.map_or(first, |step| first.max(step)))
        } else {
            self.next_step.or(first)
        }
    }
}

impl<C, L: Clone> Dispatch<C, L> {
    /// After how long a member is given up, if that is wanted.
    pub(super) fn gives_up_after(&self) -> Option<Duration> {
        self.rules.disconnect_notify.as_ref()?.on_member_loss
    }

    /// A member has done a U: what is to be told when it is lost is what that U says.
    pub(super) fn remember_wish(
        &mut self,
        now: Instant,
        t: &Transaction<C>,
        at: MemberId,
        out: &mut Outbox<C, L>,
    ) {
        let key = &t.key;
        if self.gives_up_after().is_none() || key.verb != Verb::Update || key.ends {
            return;
        }
        let (Ok(command), Some(member)) = (command::parse(&t.text), self.members.get(usize::from(at.index)))
        else {
            return;
        };
        let relay = super::relay_of(&self.rules);
        let notice = command
            .notify
            .and_then(|notify| rewrite::notice(&notify, t.origin, relay, member.notifier()));
        let session = session_of(&command);
        let kept = self.sessions.set_wish(key.hash, session, notice.as_ref());
        if kept.is_err()
            && let Some(sessions) = self.losses.forgotten.hit(now)
        {
            out.notes.push(Note::WishesFull { sessions });
        }
    }

    /// Sessions have been deleted: nobody wants to hear of them.
    pub(super) fn forget_wishes(&mut self, hash: u64, command: &Command<'_>) {
        self.sessions.delete_wishes(hash, session_of(command));
    }

    /// A member is taken out while it is offline: its calls are told of as soon as may be.
    pub(super) fn give_up_member(&mut self, now: Instant, id: MemberId) {
        self.losses.found(id);
        if self.gives_up_after().is_none() {
            return;
        }
        let tick = self.tick(now);
        let owed = &mut self.losses.owed;
        for shard in 0..SHARDS {
            self.sessions
                .take_wishes(tick, id, shard, usize::MAX, |notice| owed.push_back(notice));
        }
        if !owed.is_empty() {
            self.losses.next_step.get_or_insert(now);
        }
    }

    /// When there is something to tell next.
    pub(super) fn next_loss(&self) -> Option<Instant> {
        self.losses.due(self.gives_up_after()?)
    }

    /// Tells what is due.
    pub(super) fn tell_losses(&mut self, now: Instant, out: &mut Outbox<C, L>) {
        let Some(after) = self.gives_up_after() else {
            self.losses.owed.clear();
            self.losses.next_step = None;
            return;
        };
        if self.losses.due(after).is_none_or(|due| due > now) {
            return;
        }
        let tick = self.tick(now);
        let losses = &mut self.losses;
        let (mut left, mut shards) = (PER_STEP, SHARDS_PER_STEP);
        while left > 0
            && let Some(notice) = losses.owed.pop_front()
        {
            out.notices.push(notice);
            left -= 1;
        }
        for away in losses.away.iter_mut().filter(|away| away.since + after <= now) {
            while left > 0 && shards > 0 && away.shard < SHARDS {
                let told = out.notices.len();
                let all = self
                    .sessions
                    .take_wishes(tick, away.member, away.shard, left, |notice| {
                        out.notices.push(notice);
                    });
                left = left.saturating_sub(out.notices.len() - told);
                away.shard += usize::from(all);
                shards -= 1;
            }
        }
        losses.next_step = Some(now + STEP);
        if losses.due(after).is_none() {
            losses.next_step = None;
        }
    }
}

fn session_of<'a>(command: &Command<'a>) -> Session<'a> {
    Session {
        call_id: command.call_id,
        from: command.from_tag,
        to: command.to_tag,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, ms, rules};
    use super::*;
    use crate::config::model;

    const AFTER: Duration = Duration::from_secs(30);

    /// Three members over UDP that send notifications, and a relay.
    fn bench(after: Option<Duration>) -> Bench {
        let rules = model::Cluster {
            disconnect_notify: Some(model::DisconnectNotify {
                inbound_address: "192.0.2.1:12131".parse().unwrap(),
                dest_socket_prefix: "/run/sip".to_owned(),
                on_member_loss: after,
                tcp: crate::config::model::NotifyTcp::default(),
            }),
            ..rules()
        };
        let mut bench = Bench::with(&rules, &["A", "B", "C"]);
        for name in ["A", "B", "C"] {
            bench.capability(name, 20_081_224);
            bench.capability(name, 20_150_617);
        }
        bench
    }

    /// A U with this socket and tag, answered; gives the member.
    fn update(bench: &mut Bench, text: &str) -> &'static str {
        bench.command(text);
        let (member, cookie, _) = bench.one_sent();
        bench.answer(member, cookie, "35000 192.0.2.9");
        member
    }

    /// A call whose member is to tell `/run/sip.1` its call-id.
    fn call(bench: &mut Bench, call_id: &str) -> &'static str {
        update(
            bench,
            &format!("U {call_id} 192.0.2.1 4000 from /run/sip.1 {call_id}%20tag"),
        )
    }

    /// What has been told since the last look.
    fn told(bench: &mut Bench) -> Vec<String> {
        let mut told: Vec<String> = bench
            .notices
            .drain(..)
            .map(|notice| format!("{} {}", notice.to, String::from_utf8_lossy(&notice.text)))
            .collect();
        told.sort_unstable();
        told
    }

    #[test]
    fn calls_of_a_member_that_is_lost_are_told_of_once() {
        let mut bench = bench(Some(AFTER));
        let mut theirs = Vec::new();
        let home = call(&mut bench, "call-0");
        for n in 1..30 {
            let call_id = format!("call-{n}");
            if call(&mut bench, &call_id) == home {
                theirs.push(format!("/run/sip.1 {call_id} tag"));
            }
        }
        theirs.push("/run/sip.1 call-0 tag".to_owned());
        theirs.sort_unstable();
        // One that asks for nothing.
        bench.command("U silent 192.0.2.1 4000 from");
        let (member, cookie, _) = bench.one_sent();
        bench.answer(member, cookie, "35000 192.0.2.9");

        bench.online(home, false);
        bench.pass(AFTER.saturating_sub(ms(10)));
        assert_eq!(told(&mut bench), Vec::<String>::new());
        bench.pass(Duration::from_secs(5));
        assert_eq!(told(&mut bench), theirs);
        bench.pass(2 * AFTER);
        bench.online(home, true);
        bench.online(home, false);
        bench.pass(2 * AFTER);
        assert_eq!(told(&mut bench), Vec::<String>::new(), "once");
    }

    #[test]
    fn a_tag_in_a_later_command_goes_where_the_call_s_notifications_go() {
        let mut bench = bench(None);
        bench.command("U c1 192.0.2.1 4000 from /run/sip.7 tag");
        let (member, cookie, _) = bench.one_sent();
        bench.answer(member, cookie, "35000 192.0.2.9");
        for (text, want) in [
            (
                "L c1 192.0.2.2 5000 from to && M3:1 Dd1",
                "L c1 192.0.2.2 5000 from to && M3:1 .7%20Dd1",
            ),
            (
                "U c1 192.0.2.2 5000 from to && M3:1 Dd1",
                "U c1 192.0.2.2 5000 from to && M3:1 .7%20Dd1",
            ),
            ("L c1 192.0.2.2 5000 from to", "L c1 192.0.2.2 5000 from to"),
        ] {
            bench.command(text);
            let (member, cookie, sent) = bench.one_sent();
            assert_eq!(sent, want);
            bench.answer(member, cookie, "35000 192.0.2.9");
        }
    }

    #[test]
    fn a_member_that_is_back_in_time_has_lost_nothing() {
        let mut bench = bench(Some(AFTER));
        let home = call(&mut bench, "call");
        bench.online(home, false);
        bench.pass(AFTER / 2);
        bench.online(home, true);
        bench.pass(AFTER);
        assert_eq!(told(&mut bench), Vec::<String>::new());
        // The next time counts from its own beginning.
        bench.online(home, false);
        bench.pass(AFTER / 2);
        assert_eq!(told(&mut bench), Vec::<String>::new());
        bench.pass(AFTER);
        assert_eq!(told(&mut bench), ["/run/sip.1 call tag"]);
    }

    #[test]
    fn what_has_ended_moved_or_changed_its_mind_is_not_told_of() {
        let mut bench = bench(Some(AFTER));
        let home = call(&mut bench, "kept");
        let on_home = |bench: &mut Bench, prefix: &str| {
            let mut ids = (0..1_000).map(|n| format!("{prefix}-{n}"));
            ids.find(|id| call(bench, id) == home).unwrap()
        };
        let (ended, moved, quiet, late) = (
            on_home(&mut bench, "ended"),
            on_home(&mut bench, "moved"),
            on_home(&mut bench, "quiet"),
            on_home(&mut bench, "late"),
        );
        bench.command(&format!("D {ended} from to"));
        bench.take_sent();
        update(&mut bench, &format!("U {quiet} 192.0.2.1 4000 from to"));
        bench.online(home, false);
        // Deleted while its member is away, and healed by a re-INVITE, which asks again.
        bench.command(&format!("D {late} from to"));
        assert_ne!(
            update(
                &mut bench,
                &format!("U {moved} 192.0.2.1 4000 from to /run/sip.1 {moved}")
            ),
            home
        );
        bench.pass(2 * AFTER);
        let told = told(&mut bench);
        assert!(told.contains(&"/run/sip.1 kept tag".to_owned()), "{told:?}");
        for call_id in [ended, moved, quiet, late] {
            assert!(
                !told.iter().any(|text| text.contains(&call_id)),
                "{call_id}: {told:?}"
            );
        }
    }

    #[test]
    fn many_are_told_of_at_a_bounded_rate() {
        let mut bench = Bench::with(&bench(Some(AFTER)).core.rules().clone(), &["A"]);
        bench.capability("A", 20_081_224);
        bench.capability("A", 20_150_617);
        for n in 0..500 {
            call(&mut bench, &format!("call-{n}"));
        }
        bench.online("A", false);
        bench.pass(AFTER);
        let mut all = 0;
        let mut seconds = 0;
        while all < 500 {
            bench.pass(Duration::from_secs(1));
            let now = told(&mut bench).len();
            assert!(now <= 210, "{now} in a second");
            all += now;
            seconds += 1;
            assert!(seconds < 10, "{all} in {seconds} seconds");
        }
        assert_eq!(all, 500);
    }

    #[test]
    fn a_member_that_is_taken_out_while_it_is_away_is_lost_at_once() {
        let mut bench = bench(Some(AFTER));
        let home = call(&mut bench, "call");
        bench.online(home, false);
        bench.remove(home);
        bench.pass(STEP);
        assert_eq!(told(&mut bench), ["/run/sip.1 call tag"]);
        // One that serves goes on with its calls, whoever asks.
        let other = call(&mut bench, "other");
        bench.remove(other);
        bench.pass(2 * AFTER);
        assert_eq!(told(&mut bench), Vec::<String>::new());
    }

    #[test]
    fn nothing_is_kept_where_it_is_not_wanted() {
        let mut bench = bench(None);
        let home = call(&mut bench, "call");
        bench.online(home, false);
        bench.pass(2 * AFTER);
        assert_eq!(told(&mut bench), Vec::<String>::new());
    }
}
