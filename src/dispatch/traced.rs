//! What is told of commands on their way: to who follows a call, and of those that came out badly. Where nobody follows,
//! a step costs one comparison, and the end of a command three. Pure.

use core::time::Duration;
use std::borrow::Cow;
use std::time::Instant;

use super::Dispatch;
use super::attempt::{Exchange, Fate, Replied, Transaction};
use super::event::{SLOW, Step, TEXT_MAX, Traced};
use super::outbox::Outbox;
use crate::protocol::command;

/// A command that was answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Command<'a> {
    pub(super) started: Instant,
    pub(super) call_id: &'a [u8],
    pub(super) text: &'a [u8],
}

/// As much as is told.
fn short(text: &[u8]) -> Vec<u8> {
    text.iter().take(TEXT_MAX).copied().collect()
}

/// A step with nothing but what every step has.
fn bare(step: Step, call_id: &[u8], client: &str, why: impl Into<Cow<'static, str>>, text: &[u8]) -> Traced {
    Traced {
        at: Duration::ZERO,
        call_id: call_id.to_vec(),
        step,
        client: client.to_owned(),
        member: None,
        attempt: None,
        delay: None,
        why: why.into(),
        command: None,
        text: short(text),
        ends_call: false,
    }
}

/// The call-id of a command, of ours too.
fn call_id_of<C>(t: &Transaction<C>) -> &[u8] {
    command::parse(&t.text).map_or(&[], |command| command.call_id)
}

impl<C, L: Clone> Outbox<C, L> {
    /// A command has come.
    pub(super) fn trace_received(&mut self, text: &[u8], call_id: &[u8]) {
        if self.tracing {
            let step = bare(Step::Received, call_id, &self.who, "", text);
            self.traced.push(step);
        }
    }
}

impl<C, L: Clone> Dispatch<C, L> {
    /// A step of one of the exchanges of a command.
    fn step(&self, t: &Transaction<C>, place: usize, step: Step, text: &[u8]) -> Traced {
        let exchange = t.exchanges.get(place);
        let member = exchange.and_then(|exchange| self.members.get(usize::from(exchange.member.index)));
        let client = if t.client.is_none() && t.who.is_empty() {
            "rtp_cluster"
        } else {
            &t.who
        };
        let why = exchange.map_or(Cow::Borrowed(""), |exchange| exchange.why.words());
        Traced {
            member: member.map(|member| member.config.name.clone()),
            attempt: u8::try_from(place + 1).ok(),
            ..bare(step, call_id_of(t), client, why, text)
        }
    }

    /// A command has gone to a member: it is the last in the outbox.
    pub(super) fn trace_sent(&self, t: &Transaction<C>, place: usize, again: bool, out: &mut Outbox<C, L>) {
        if out.tracing {
            let mut step = self.step(t, place, Step::Sent, out.last_sent());
            if again {
                step.why = "sent again".into();
            }
            out.traced.push(step);
        }
    }

    /// A member has answered.
    pub(super) fn trace_reply(
        &self,
        now: Instant,
        t: &Transaction<C>,
        place: usize,
        text: &[u8],
        out: &mut Outbox<C, L>,
    ) {
        if out.tracing {
            let mut step = self.step(t, place, Step::Replied, text);
            step.delay = since(now, t, place);
            out.traced.push(step);
        }
    }

    /// A member has not answered, for that reason.
    pub(super) fn trace_silence(
        &self,
        now: Instant,
        t: &Transaction<C>,
        place: usize,
        why: &'static str,
        out: &mut Outbox<C, L>,
    ) {
        if out.tracing {
            let mut step = self.step(t, place, Step::Unanswered, b"");
            step.delay = since(now, t, place);
            step.why = why.into();
            out.traced.push(step);
        }
    }

    /// All members that have not answered will not be waited for any more.
    pub(super) fn trace_giving_up(&self, now: Instant, t: &Transaction<C>, out: &mut Outbox<C, L>) {
        if out.tracing {
            for (place, exchange) in t.exchanges.iter().enumerate() {
                if exchange.fate == Fate::Waiting {
                    self.trace_silence(now, t, place, "given up", out);
                }
            }
        }
    }

    /// The client of a transaction has been answered.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        t: &Transaction<C>,
        how: Replied,
        out: &mut Outbox<C, L>,
    ) {
        let place = how.by.and_then(|by| {
            let answered = |exchange: &Exchange| exchange.member == by && exchange.fate == Fate::Answered;
            t.exchanges.iter().rposition(answered)
        });
        let command = Command {
            started: t.started,
            call_id: t.call_id(),
            text: &t.text,
        };
        let told = self.account(now, command, how.reply, out);
        if let Some(mut answer) = told {
            if let Some(place) = place {
                let step = self.step(t, place, Step::Answered, b"");
                (answer.member, answer.attempt, answer.why) = (step.member, step.attempt, step.why);
            }
            answer.client.clone_from(&t.who);
            answer.ends_call = t.key.ends && (place.is_some() || !answer.text.starts_with(b"E"));
            tell(how.reply, answer, out);
        }
    }

    /// A command has been answered at once.
    pub(super) fn answered_at_once(
        &mut self,
        now: Instant,
        command: Command<'_>,
        reply: Option<usize>,
        out: &mut Outbox<C, L>,
    ) {
        if let Some(reply) = reply
            && let Some(mut answer) = self.account(now, command, reply, out)
        {
            answer.client.clone_from(&out.who);
            tell(reply, answer, out);
        }
    }

    /// Takes the time of a command down. What there is to tell of it, if somebody follows or it came out badly.
    fn account(
        &mut self,
        now: Instant,
        command: Command<'_>,
        reply: usize,
        out: &Outbox<C, L>,
    ) -> Option<Traced> {
        let delay = now.saturating_duration_since(command.started);
        self.times.add(delay);
        let text = out.reply_text(reply);
        if !out.tracing && delay <= SLOW && text.first() != Some(&b'E') {
            return None;
        }
        Some(Traced {
            delay: Some(delay),
            command: Some(short(command.text)),
            ..bare(Step::Answered, command.call_id, "", "by rtp_cluster", text)
        })
    }
}

/// Tells who follows, and keeps what came out badly for when the client is known.
fn tell<C, L>(reply: usize, answer: Traced, out: &mut Outbox<C, L>) {
    if out.tracing {
        out.traced.push(Traced {
            command: None,
            ..answer.clone()
        });
    }
    if answer.is_noteworthy() {
        out.keep(reply, answer);
    }
}

/// How long ago an exchange began.
fn since<C>(now: Instant, t: &Transaction<C>, place: usize) -> Option<Duration> {
    let exchange = t.exchanges.get(place)?;
    Some(now.saturating_duration_since(exchange.sent))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, ms, rules};
    use super::*;
    use crate::config::model::Policy;

    /// What was told since the last look, a line a step: step, member, attempt, why, text.
    fn told(bench: &mut Bench) -> Vec<String> {
        let line = |step: Traced| {
            let member = step.member.map(|name| name.to_string()).unwrap_or_default();
            let attempt = step.attempt.unwrap_or_default();
            let text = String::from_utf8(step.text).unwrap();
            format!(
                "{} {} {member}{attempt} {}: {text}",
                step.client, step.step, step.why
            )
        };
        bench.steps.drain(..).map(line).collect()
    }

    #[test]
    fn a_call_is_followed_from_its_command_over_a_failover_to_what_is_undone() {
        let mut bench = Bench::with(&rules(), &["A", "B"]);
        bench.follow();
        bench.command("U c1 192.0.2.1 4000 from");
        let (slow, late, _) = bench.one_sent();
        bench.pass(ms(251));
        let sent = bench.take_sent();
        let (other, cookie, _) = sent.into_iter().find(|(member, ..)| *member != slow).unwrap();
        bench.answer(other, cookie, "35000 192.0.2.9");
        bench.answer(slow, late, "36000 192.0.2.8");
        let undone = bench.one_sent();
        bench.answer(slow, undone.1, "0");
        assert!(bench.steps.iter().all(|step| step.call_id == b"c1"));
        let delays: Vec<_> = bench.steps.iter().map(|step| step.delay).collect();
        let told = told(&mut bench);
        let want = [
            "the proxy received 0 : U c1 192.0.2.1 4000 from".to_owned(),
            format!("the proxy sent {slow}1 chosen by weight: U c1 192.0.2.1 4000 from"),
            format!("the proxy sent {slow}1 sent again: U c1 192.0.2.1 4000 from"),
            format!("the proxy sent {slow}1 sent again: U c1 192.0.2.1 4000 from"),
            format!("the proxy unanswered {slow}1 not in time: "),
            format!("the proxy sent {other}2 failed over after 250 ms: U c1 192.0.2.1 4000 from"),
            format!("the proxy replied {other}2 failed over after 250 ms: 35000 192.0.2.9"),
            format!("the proxy answered {other}2 failed over after 250 ms: 35000 192.0.2.9"),
            format!("the proxy replied {slow}1 chosen by weight: 36000 192.0.2.8"),
            format!("rtp_cluster sent {slow}1 undone: D c1 from"),
            format!("rtp_cluster replied {slow}1 undone: 0"),
        ];
        assert_eq!(told, want);
        assert_eq!((delays[4], delays[7]), (Some(ms(250)), Some(ms(251))));
    }

    #[test]
    fn who_follows_is_told_why_a_command_goes_where_it_goes() {
        let hashed = crate::config::model::Cluster {
            policy: Policy::Hash,
            ..rules()
        };
        let mut bench = Bench::with(&hashed, &["A", "B"]);
        bench.follow();
        bench.command("U c1 192.0.2.1 4000 from");
        let (home, cookie, _) = bench.one_sent();
        bench.answer(home, cookie, "35000 192.0.2.9");
        bench.command("D c1 from to");
        let (_, cookie, _) = bench.one_sent();
        bench.answer(home, cookie, "0");
        let ends: Vec<bool> = bench.steps.iter().map(|step| step.ends_call).collect();
        assert_eq!(ends, [false, false, false, false, false, false, false, true]);
        let lines = told(&mut bench);
        assert_eq!(
            lines[1],
            format!("the proxy sent {home}1 chosen by hash: U c1 192.0.2.1 4000 from")
        );
        assert_eq!(lines[5], format!("the proxy sent {home}1 bound: D c1 from to"));
        bench.command("Q unheard-of from to");
        let (first, cookie, _) = bench.one_sent();
        bench.answer(first, cookie, "E50");
        let (second, ..) = bench.one_sent();
        let lines = told(&mut bench);
        assert_eq!(
            lines[1],
            format!("the proxy sent {first}1 asked: the hash names it: Q unheard-of from to")
        );
        assert_eq!(
            lines[3],
            format!("the proxy sent {second}2 asked: the hash names it: Q unheard-of from to")
        );
        bench.command("Z");
        assert_eq!(
            told(&mut bench),
            [
                "the proxy received 0 : Z",
                "the proxy answered 0 by rtp_cluster: E0"
            ]
        );
    }

    #[test]
    fn only_what_comes_out_badly_is_kept_and_nothing_told_when_nobody_follows() {
        let mut bench = Bench::with(&rules(), &["A"]);
        bench.command("U good 192.0.2.1 4000 from");
        let (member, cookie, _) = bench.one_sent();
        bench.answer(member, cookie, "35000 192.0.2.9");
        assert_eq!(bench.kept, []);
        bench.command("U slow 192.0.2.1 4000 from");
        let (member, cookie, _) = bench.one_sent();
        bench.pass(ms(101));
        bench.answer(member, cookie, "35000 192.0.2.9");
        bench.take_sent();
        bench.command("U bad 192.0.2.1 4000 from");
        let (member, cookie, _) = bench.one_sent();
        bench.answer(member, cookie, "E7");
        bench.online("A", false);
        bench.command("U lost 192.0.2.1 4000 from");
        bench.command("Z");
        let kept: Vec<_> = bench
            .kept
            .iter()
            .map(|kept| (&*kept.call_id, &*kept.text))
            .collect();
        let want: [(&[u8], &[u8]); 4] = [
            (b"slow", b"35000 192.0.2.9"),
            (b"bad", b"E7"),
            (b"lost", b"E999"),
            (b"", b"E0"),
        ];
        assert_eq!(kept, want);
        assert_eq!(
            bench.kept[1].command.as_deref(),
            Some(&b"U bad 192.0.2.1 4000 from"[..])
        );
        assert_eq!(
            bench.kept[1]
                .member
                .as_ref()
                .map(crate::config::model::Name::as_str),
            Some("A")
        );
        assert_eq!(bench.steps, []);
        assert_eq!(bench.core.times().buckets.iter().sum::<u64>(), 5);
    }
}
