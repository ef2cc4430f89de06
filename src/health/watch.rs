//! Whether one member is online: probes and time in, changes out. Pure: `health_thread.rs` asks what to send next
//! ([`Watch::next`]), sends it, and says how it ended ([`Watch::ended`]).
//!
//! ```text
//!            V: answered `rise` times in a row
//!  unprobed ─────────────────────────────────────────────────────────────────▶ online
//!  offline  ◀──────────────────────────────────────────────────────────────────
//!            `fall` probes failed, or refused once, or V says that it speaks something else
//! ```
//!
//! - One probe that decides is under way at a time: `V` of one that is not online, the counts each interval of one that
//!   is. What it can do is asked beside that, and decides nothing here.
//! - A command that went unanswered counts like a failed probe, once an interval, but never takes a member offline alone.
//! - A row of failed probes is over when `rise` have been answered in a row: with `rise` at 2 a member that answers
//!   every other probe goes offline, and stays there.
//! - Who goes offline soon after coming online, more than [`FREE_RETURNS`] times, must answer for longer each time
//!   before it is taken back, up to [`PROBATION_MAX`]; not while nobody else of its cluster takes new calls
//!   ([`Watch::is_needed`]), since a member that may fail again serves better than none.
//! - A probe that ends much later than it should says that we were not there (stopped, or the machine was): it is
//!   sent once more before it counts.

use core::fmt;
use core::time::Duration;
use std::time::Instant;

use crate::config::model::Health;
use crate::link::Refused;

/// A probe that ends so much after its time has not been waited for.
pub const LATE: Duration = Duration::from_millis(500);
/// A member that has been online for so long does not flap.
pub const STEADY: Duration = Duration::from_secs(30);
/// Returns in a row, each followed by a loss before it was steady, that are taken at face value.
pub const FREE_RETURNS: u32 = 2;
/// A member that flaps must answer for so long at most.
pub const PROBATION_MAX: Duration = Duration::from_secs(60);
/// When nobody has said so long after its time how a probe ended, nobody will.
const FORSAKEN: Duration = Duration::from_secs(5);

/// What to ask a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// `V`: what does it speak?
    Version,
    /// `Ib`: how many sessions has it, and has it had?
    Counts,
}

/// What it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// To `V`: 20040107.
    Version,
    /// To `V`: something else.
    WrongVersion,
    /// To `Ib`: its counts.
    Counts {
        /// Sessions created since it was started.
        created: u64,
    },
    /// To `Ib`: it does not say how many it has, by an error or with numbers that are none. It is there all the same.
    Uncounted,
    /// An error, or something that is no reply to what it was asked.
    Odd,
}

/// Whether a member is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its first probe has not ended yet.
    Unprobed,
    /// It serves.
    Online,
    /// It does not.
    Offline,
}

/// Why it is in its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Nothing is known yet.
    NotProbed,
    /// It answers.
    Answers,
    /// So many probes in a row got no reply.
    Silent {
        /// How many.
        probes: u32,
    },
    /// So many probes in a row failed, the last one by an answer that was none.
    Odd {
        /// How many.
        probes: u32,
    },
    /// Nobody listens at its address, or it cannot be reached; what the system said.
    Refused(Refused),
    /// Its name has no address; what the system said, and how often it is asked again.
    NoName {
        /// The reason.
        error: String,
        /// Between two look-ups.
        retry: Duration,
    },
    /// It is no RTPproxy that we can talk to.
    WrongVersion,
}

impl Why {
    /// Whether it is the same reason, however often it was met.
    fn is_like(&self, other: &Self) -> bool {
        self == other
            || core::mem::discriminant(self) == core::mem::discriminant(other)
                && matches!(self, Self::Silent { .. } | Self::Odd { .. })
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotProbed => f.write_str("not probed yet"),
            Self::Answers => f.write_str("answers"),
            Self::Silent { probes: 1 } => f.write_str("1 probe unanswered"),
            Self::Silent { probes } => write!(f, "{probes} probes unanswered"),
            Self::Odd { probes: 1 } => f.write_str("1 probe answered with nonsense"),
            Self::Odd { probes } => write!(f, "{probes} probes failed, the last answered with nonsense"),
            Self::Refused(refused) => refused.fmt(f),
            Self::NoName { error, retry } => write!(
                f,
                "the name is not found: {error}; looked up again every {} s",
                retry.as_secs_f32()
            ),
            Self::WrongVersion => f.write_str("it does not answer V with 20040107"),
        }
    }
}

/// What has changed; telling it is the rim's work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// It came online.
    Online,
    /// It went offline.
    Offline(Why),
    /// Its first probe failed: it is offline, and has never been online.
    Absent(Why),
    /// It is still offline, for another reason.
    Still(Why),
    /// It has been restarted: what was bound to it before this heartbeat, its last good one before that, is gone.
    Restarted {
        /// When that heartbeat was answered.
        last_good: Instant,
    },
}

/// How a probe that decides has ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ended {
    /// It was answered.
    Answered(Answer),
    /// It was not.
    Missed,
    /// Its socket refused.
    Refused(Refused),
}

/// One member under watch.
#[derive(Debug, Clone)]
pub struct Watch {
    state: State,
    why: Why,
    since: Instant,
    /// The probe under way.
    asked: Option<Asked>,
    /// What is asked next, and when.
    step: Step,
    next: Instant,
    /// When the last probe was sent.
    last_sent: Option<Instant>,
    /// Failed probes of the row that is not over yet.
    failed: u32,
    /// Answered probes in a row; while it is not online, answered `V`s.
    answered: u32,
    /// When that row began.
    good_since: Option<Instant>,
    /// When the failure of a command was last counted.
    blamed: Option<Instant>,
    /// Its created-sessions counter at the last good heartbeat, and when that was.
    created: Option<(u64, Instant)>,
    /// Losses in a row, each soon after a return.
    flaps: u32,
    /// Whether the last probe that ended was one that had not been waited for.
    forgiven: bool,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    sent: Instant,
    deadline: Instant,
}

/// Place in the order of questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Version,
    Counts,
}

impl Watch {
    /// A member of which nothing is known; its first probe is due at once.
    pub fn new(now: Instant) -> Self {
        Self {
            state: State::Unprobed,
            why: Why::NotProbed,
            since: now,
            asked: None,
            step: Step::Version,
            next: now,
            last_sent: None,
            failed: 0,
            answered: 0,
            good_since: None,
            blamed: None,
            created: None,
            flaps: 0,
            forgiven: false,
        }
    }

    /// The same member, asked by another from now on: what is under way there counts for nothing here.
    #[must_use]
    pub fn taken_over(&self, now: Instant) -> Self {
        Self {
            asked: None,
            next: now,
            ..self.clone()
        }
    }

    /// Whether it is there.
    pub fn state(&self) -> State {
        self.state
    }

    /// Why it is in that state.
    pub fn why(&self) -> &Why {
        &self.why
    }

    /// Since when it is in that state.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// How long it must answer without a miss before it is online again; zero unless it flaps.
    pub fn probation(&self, rules: &Health) -> Duration {
        match self.flaps.checked_sub(FREE_RETURNS) {
            None | Some(0) => Duration::ZERO,
            Some(n) => rules
                .retry
                .saturating_mul(2_u32.saturating_pow(n))
                .min(PROBATION_MAX),
        }
    }

    /// Nobody else of its cluster takes new calls: it is taken back as soon as it answers, like one that has not
    /// flapped. Its next loss soon after that is held against it again.
    pub fn is_needed(&mut self) {
        self.flaps = self.flaps.min(FREE_RETURNS);
    }

    /// When [`Watch::next`] is to be asked again.
    pub fn due(&self) -> Instant {
        self.asked.map_or(self.next, |asked| asked.deadline + FORSAKEN)
    }

    /// The probe to send now; `None` when it is not time, or one is under way.
    pub fn next(&mut self, now: Instant, rules: &Health) -> Option<Probe> {
        if now < self.due() {
            return None;
        }
        self.asked = Some(Asked {
            sent: now,
            deadline: now + rules.timeout,
        });
        self.last_sent = Some(now);
        Some(match self.step {
            Step::Version => Probe::Version,
            Step::Counts => Probe::Counts,
        })
    }

    /// A command to it went unanswered: the next probe is due at once, unless one has just been sent.
    pub fn suspect(&mut self, now: Instant, rules: &Health) {
        if self.state != State::Online {
            return;
        }
        let soon = self
            .last_sent
            .map_or(now, |sent| now.max(sent + rules.interval / 4));
        self.next = self.next.min(soon);
        if self.blamed.is_none_or(|blamed| now >= blamed + rules.interval) {
            self.blamed = Some(now);
            self.answered = 0;
            self.good_since = None;
            self.failed = (self.failed + 1).min(rules.fall.saturating_sub(1));
        }
    }

    /// The probe under way was answered.
    pub fn answered(&mut self, now: Instant, rules: &Health, answer: Answer) -> Change {
        let Some(asked) = self.asked.take() else {
            return Change::None;
        };
        self.forgiven = false;
        match (self.step, answer) {
            (Step::Version, Answer::Version) => self.speaks(now, rules, asked),
            (Step::Version, Answer::WrongVersion) => self.fail(now, rules, asked.sent, Why::WrongVersion),
            (Step::Counts, Answer::Counts { created }) => {
                self.count_answer(rules);
                self.next = now.max(asked.sent + rules.interval);
                match self.created.replace((created, now)) {
                    Some((before, last_good)) if created < before => {
                        // It may be another version as well.
                        self.step = Step::Version;
                        self.next = now;
                        Change::Restarted { last_good }
                    }
                    _ => Change::None,
                }
            }
            (Step::Counts, Answer::Uncounted) => {
                self.count_answer(rules);
                self.next = now.max(asked.sent + rules.interval);
                Change::None
            }
            _ => self.fail(
                now,
                rules,
                asked.sent,
                Why::Odd {
                    probes: self.failed.saturating_add(1),
                },
            ),
        }
    }

    /// The probe under way was not answered in its time.
    pub fn missed(&mut self, now: Instant, rules: &Health) -> Change {
        let Some(asked) = self.asked.take() else {
            return Change::None;
        };
        if now > asked.deadline + LATE && !self.forgiven {
            self.forgiven = true;
            self.next = now;
            return Change::None;
        }
        self.forgiven = false;
        self.fail(
            now,
            rules,
            asked.sent,
            Why::Silent {
                probes: self.failed.saturating_add(1),
            },
        )
    }

    /// Its socket refused, a probe or a command.
    pub fn refused(&mut self, now: Instant, rules: &Health, why: Refused) -> Change {
        if self.asked.take().is_none() && self.state == State::Offline {
            // Commands that were still under way; the next try is not put off for them.
            return Change::None;
        }
        self.forgiven = false;
        self.fail(now, rules, now, Why::Refused(why))
    }

    /// A probe that decides has ended, or a command was refused. `is_lonely` says whether a cluster has nobody else who
    /// takes new calls; it is asked only where it matters, and that is seldom.
    pub fn ended(
        &mut self,
        now: Instant,
        rules: &Health,
        ended: Ended,
        is_lonely: impl FnOnce() -> bool,
    ) -> Change {
        if ended == Ended::Answered(Answer::Version) && !self.probation(rules).is_zero() && is_lonely() {
            self.is_needed();
        }
        match ended {
            Ended::Answered(answer) => self.answered(now, rules, answer),
            Ended::Missed => self.missed(now, rules),
            Ended::Refused(why) => self.refused(now, rules, why),
        }
    }

    /// Its name has no address: it was not even asked.
    pub fn nameless(&mut self, now: Instant, rules: &Health, error: String) -> Change {
        self.asked = None;
        let retry = rules.retry;
        self.fail(now, rules, now, Why::NoName { error, retry })
    }

    /// It answered `V` as it should.
    fn speaks(&mut self, now: Instant, rules: &Health, asked: Asked) -> Change {
        self.count_answer(rules);
        let good_for = now.saturating_duration_since(*self.good_since.get_or_insert(now));
        if self.state != State::Online && (self.answered < rules.rise || good_for < self.probation(rules)) {
            self.next = now.max(asked.sent + rules.interval.min(rules.retry));
            return Change::None;
        }
        self.step = Step::Counts;
        self.next = now;
        if self.state == State::Online {
            Change::None
        } else {
            self.come_online(now)
        }
    }

    fn count_answer(&mut self, rules: &Health) {
        self.answered = self.answered.saturating_add(1);
        if self.answered >= rules.rise {
            self.failed = 0;
        }
    }

    fn come_online(&mut self, now: Instant) -> Change {
        self.enter(now, State::Online, Why::Answers);
        Change::Online
    }

    /// A probe that was sent at `sent` failed, or a command was refused.
    fn fail(&mut self, now: Instant, rules: &Health, sent: Instant, why: Why) -> Change {
        self.answered = 0;
        self.good_since = None;
        self.failed = self.failed.saturating_add(1);
        let at_once = matches!(why, Why::Refused(_) | Why::WrongVersion);
        match self.state {
            State::Online if at_once || self.failed >= rules.fall => {
                let was_steady = now.saturating_duration_since(self.since) >= STEADY;
                self.flaps = if was_steady {
                    1
                } else {
                    self.flaps.saturating_add(1)
                };
                self.go_offline(now, rules, sent, why.clone());
                Change::Offline(why)
            }
            State::Online => {
                self.next = now.max(sent + rules.interval);
                Change::None
            }
            State::Unprobed => {
                self.go_offline(now, rules, sent, why.clone());
                Change::Absent(why)
            }
            State::Offline => {
                self.wait(now, rules, sent);
                if self.why.is_like(&why) {
                    return Change::None;
                }
                self.why = why.clone();
                Change::Still(why)
            }
        }
    }

    fn go_offline(&mut self, now: Instant, rules: &Health, sent: Instant, why: Why) {
        self.enter(now, State::Offline, why);
        self.wait(now, rules, sent);
    }

    /// The next try of one that is not online begins from the beginning.
    fn wait(&mut self, now: Instant, rules: &Health, sent: Instant) {
        self.step = Step::Version;
        self.next = now.max(sent + rules.retry);
    }

    fn enter(&mut self, now: Instant, state: State, why: Why) {
        self.state = state;
        self.why = why;
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a member of a test does with a probe.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Does {
        Answers,
        Ignores,
        Refuses,
        Babbles,
    }

    /// A member under watch, and the time of the test.
    struct Sim {
        start: Instant,
        now: Instant,
        rules: Health,
        watch: Watch,
        created: u64,
        asked: Vec<(Duration, Probe)>,
        changes: Vec<(Duration, Change)>,
    }

    impl Sim {
        fn new(rules: Health) -> Self {
            #[expect(
                clippy::disallowed_methods,
                reason = "a test needs some instant to count from"
            )]
            let now = Instant::now();
            let watch = Watch::new(now);
            Self {
                start: now,
                now,
                rules,
                watch,
                created: 100,
                asked: Vec::new(),
                changes: Vec::new(),
            }
        }

        fn at(&self) -> Duration {
            self.now - self.start
        }

        fn note(&mut self, change: Change) {
            if change != Change::None {
                self.changes.push((self.at(), change));
            }
        }

        fn reply(&self, probe: Probe) -> Answer {
            match probe {
                Probe::Version => Answer::Version,
                Probe::Counts => Answer::Counts {
                    created: self.created,
                },
            }
        }

        /// Lets time pass until `end`, the member doing at each probe what `does` says for that time; an answer
        /// takes 1 ms.
        fn run(&mut self, end: Duration, does: impl Fn(Duration) -> Does) {
            while self.watch.due() < self.start + end {
                self.now = self.now.max(self.watch.due());
                let Some(probe) = self.watch.next(self.now, &self.rules) else {
                    panic!("nothing to ask when due")
                };
                self.asked.push((self.at(), probe));
                let does = does(self.at());
                self.now += if does == Does::Ignores {
                    self.rules.timeout
                } else {
                    Duration::from_millis(1)
                };
                let change = match does {
                    Does::Answers => self.watch.answered(self.now, &self.rules, self.reply(probe)),
                    Does::Babbles => self.watch.answered(self.now, &self.rules, Answer::Odd),
                    Does::Ignores => self.watch.missed(self.now, &self.rules),
                    Does::Refuses => self.watch.refused(self.now, &self.rules, REFUSED),
                };
                self.note(change);
            }
            self.now = self.now.max(self.start + end);
        }

        /// Those changes, with the times left out.
        fn changes(&self) -> Vec<Change> {
            self.changes.iter().map(|(_, change)| change.clone()).collect()
        }

        fn last(&self) -> (Duration, Change) {
            self.changes.last().unwrap().clone()
        }
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// Probes before the first count, each answered after a millisecond.
    const ROUND: u64 = 1;
    const REFUSED: Refused = Refused(rustix::io::Errno::CONNREFUSED);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn the_first_round_is_version_and_counts_and_then_counts_each_interval() {
        let mut sim = Sim::new(Health::default());
        assert_eq!(
            (sim.watch.state(), sim.watch.why()),
            (State::Unprobed, &Why::NotProbed)
        );
        sim.run(secs(3), |_| Does::Answers);
        let probes: Vec<Probe> = sim.asked.iter().map(|(_, probe)| *probe).collect();
        assert_eq!(
            probes,
            [Probe::Version, Probe::Counts, Probe::Counts, Probe::Counts]
        );
        // At once, one after the other, and then a second apart.
        let counts: Vec<Duration> = sim.asked.iter().skip(1).map(|(at, _)| *at).collect();
        assert_eq!(counts, [ms(ROUND), ms(1000 + ROUND), ms(2000 + ROUND)]);
        // It is online at its first good answer.
        assert_eq!(sim.changes, [(ms(ROUND), Change::Online)]);
    }

    #[test]
    fn a_member_that_is_not_there_at_first_is_absent_after_one_probe() {
        let mut sim = Sim::new(Health::default());
        sim.run(secs(20), |_| Does::Ignores);
        assert_eq!(
            sim.changes,
            [(secs(1), Change::Absent(Why::Silent { probes: 1 }))]
        );
        let mut sim = Sim::new(Health::default());
        sim.run(secs(20), |_| Does::Refuses);
        assert_eq!(sim.changes, [(ms(1), Change::Absent(Why::Refused(REFUSED)))]);
        assert!(
            sim.asked.windows(2).all(|pair| pair[1].0 >= pair[0].0 + secs(2)),
            "{:?}",
            sim.asked
        );
        assert!(sim.asked.iter().all(|(_, probe)| *probe == Probe::Version));
    }

    #[test]
    fn a_silent_member_is_offline_after_fall_probes_and_back_within_retry() {
        let mut sim = Sim::new(Health::default());
        sim.run(secs(100), |at| {
            if (secs(10)..secs(40)).contains(&at) {
                Does::Ignores
            } else {
                Does::Answers
            }
        });
        let times: Vec<Duration> = sim.changes.iter().map(|(at, _)| *at).collect();
        assert_eq!(
            sim.changes(),
            [
                Change::Online,
                Change::Offline(Why::Silent { probes: 2 }),
                Change::Online
            ]
        );
        assert!(times[1] <= secs(13), "{times:?}");
        assert!(times[2] <= secs(42), "{times:?}");
    }

    #[test]
    fn one_lost_probe_is_no_loss() {
        let mut sim = Sim::new(Health::default());
        sim.run(secs(100), |at| {
            if at.as_secs() % 5 == 4 {
                Does::Ignores
            } else {
                Does::Answers
            }
        });
        assert_eq!(sim.changes(), [Change::Online]);
    }

    #[test]
    fn a_refusal_is_a_loss_at_once() {
        let mut sim = Sim::new(Health::default());
        sim.run(secs(10), |_| Does::Answers);
        // That of a command, between two probes.
        sim.now += ms(300);
        let change = sim.watch.refused(sim.now, &sim.rules, REFUSED);
        assert_eq!(change, Change::Offline(Why::Refused(REFUSED)));
        // More of them neither count nor put the next try off.
        let due = sim.watch.due();
        assert_eq!(due, sim.now + secs(2));
        assert_eq!(
            sim.watch.refused(sim.now + secs(1), &sim.rules, REFUSED),
            Change::None
        );
        assert_eq!(sim.watch.due(), due);
        sim.run(secs(20), |_| Does::Answers);
        assert_eq!(sim.last().1, Change::Online);
    }

    #[test]
    fn nonsense_counts_as_a_failed_probe() {
        let mut sim = Sim::new(Health::default());
        sim.run(secs(30), |at| {
            if at > secs(5) {
                Does::Babbles
            } else {
                Does::Answers
            }
        });
        assert_eq!(
            sim.changes(),
            [Change::Online, Change::Offline(Why::Odd { probes: 2 })]
        );
        assert_eq!(sim.watch.state(), State::Offline);
    }

    #[test]
    fn a_member_that_does_not_count_is_there_all_the_same() {
        let mut sim = Sim::new(Health::default());
        sim.run(secs(2), |_| Does::Answers);
        for _ in 0..10 {
            sim.now = sim.now.max(sim.watch.due());
            assert_eq!(sim.watch.next(sim.now, &sim.rules), Some(Probe::Counts));
            assert_eq!(
                sim.watch.answered(sim.now, &sim.rules, Answer::Uncounted),
                Change::None
            );
        }
        assert_eq!(sim.watch.state(), State::Online);
    }

    #[test]
    fn failed_commands_count_but_do_not_decide() {
        let mut sim = Sim::new(Health {
            rise: 2,
            ..Health::default()
        });
        sim.run(ms(3_500), |_| Does::Answers);
        for _ in 0..5 {
            sim.watch.suspect(sim.now, &sim.rules);
            sim.now += secs(1);
        }
        assert_eq!(sim.watch.state(), State::Online);
        // One failed probe is enough now.
        assert!(sim.watch.next(sim.now, &sim.rules).is_some());
        sim.now += secs(1);
        assert!(matches!(
            sim.watch.missed(sim.now, &sim.rules),
            Change::Offline(Why::Silent { .. })
        ));
    }

    #[test]
    fn another_reason_is_told_and_the_same_is_not_told_again() {
        let mut sim = Sim::new(Health::default());
        let no_name = |sim: &mut Sim| sim.watch.nameless(sim.now, &sim.rules, "no such name".to_owned());
        let why = Why::NoName {
            error: "no such name".to_owned(),
            retry: secs(2),
        };
        assert_eq!(no_name(&mut sim), Change::Absent(why));
        sim.now += secs(2);
        assert_eq!(no_name(&mut sim), Change::None);
        sim.run(secs(10), |_| Does::Ignores);
        assert_eq!(sim.changes(), [Change::Still(Why::Silent { probes: 3 })]);
    }

    #[test]
    fn another_version_is_not_served() {
        let mut sim = Sim::new(Health::default());
        let probe = sim.watch.next(sim.now, &sim.rules);
        assert_eq!(probe, Some(Probe::Version));
        let change = sim.watch.answered(sim.now, &sim.rules, Answer::WrongVersion);
        assert_eq!(change, Change::Absent(Why::WrongVersion));
        assert_eq!(sim.watch.due(), sim.now + secs(2));
    }

    #[test]
    fn with_a_higher_rise_it_takes_as_many_rounds() {
        let mut sim = Sim::new(Health {
            rise: 3,
            ..Health::default()
        });
        sim.run(secs(10), |_| Does::Answers);
        assert_eq!(sim.changes, [(ms(2000 + ROUND), Change::Online)]);
        let mut sim = Sim::new(Health {
            rise: 3,
            ..Health::default()
        });
        sim.run(secs(60), |at| {
            if at.as_secs() % 4 == 0 {
                Does::Refuses
            } else {
                Does::Answers
            }
        });
        assert_eq!(
            sim.changes(),
            [Change::Absent(Why::Refused(REFUSED))],
            "never three in a row"
        );
    }

    #[test]
    fn a_member_that_flaps_each_second_goes_offline_and_stays_there() {
        let flapping = |at: Duration| {
            if at.as_secs() % 2 == 1 {
                Does::Ignores
            } else {
                Does::Answers
            }
        };
        let mut sim = Sim::new(Health {
            rise: 2,
            fall: 3,
            timeout: ms(300),
            ..Health::default()
        });
        sim.run(secs(5), |_| Does::Answers);
        sim.run(secs(600), flapping);
        assert_eq!(
            sim.changes(),
            [Change::Online, Change::Offline(Why::Silent { probes: 3 })]
        );
    }

    #[test]
    fn a_member_that_dies_again_and_again_is_taken_back_ever_later() {
        let mut sim = Sim::new(Health::default());
        // It is there for 9 s of each 12.
        let crashing = |at: Duration| {
            if at.as_secs() % 12 >= 9 {
                Does::Refuses
            } else {
                Does::Answers
            }
        };
        sim.run(secs(600), crashing);
        let losses = sim
            .changes()
            .iter()
            .filter(|change| matches!(change, Change::Offline(_)))
            .count();
        // Twice at face value, then after 4 s and after 8 s, and never again: it does not last for 16 s.
        assert!((3..=5).contains(&losses), "{:?}", sim.changes);
        assert_eq!(sim.watch.state(), State::Offline);
        assert!(sim.watch.probation(&sim.rules) <= PROBATION_MAX);
        // When it stays, it is taken back, and once it is steady its past is forgotten.
        sim.run(secs(700), |_| Does::Answers);
        assert_eq!(sim.last().1, Change::Online);
        sim.run(secs(800), |at| {
            if at < secs(703) {
                Does::Refuses
            } else {
                Does::Answers
            }
        });
        let (back, change) = sim.last();
        assert_eq!(change, Change::Online);
        assert!(back <= secs(705), "{back:?}");
    }

    #[test]
    fn a_member_that_flaps_is_taken_back_at_once_when_nobody_else_is_there() {
        let mut sim = Sim::new(Health::default());
        let crashing = |at: Duration| {
            if at.as_secs() % 12 >= 9 {
                Does::Refuses
            } else {
                Does::Answers
            }
        };
        sim.run(secs(72), crashing);
        let answers_again = sim.at();
        assert_eq!(sim.watch.state(), State::Offline);
        assert!(sim.watch.probation(&sim.rules) > secs(5));
        sim.watch.is_needed();
        sim.run(secs(75), crashing);
        let (back, change) = sim.last();
        assert_eq!(change, Change::Online);
        assert!(back <= answers_again + sim.rules.retry + ms(ROUND), "{back:?}");
        // The next loss counts as before.
        sim.run(secs(83), crashing);
        assert_eq!(sim.last().1, Change::Offline(Why::Refused(REFUSED)));
        assert_eq!(sim.watch.probation(&sim.rules), secs(4));
    }

    #[test]
    fn probation_has_a_bound() {
        let mut watch = Sim::new(Health::default()).watch;
        let rules = Health::default();
        let mut waits = Vec::new();
        for flaps in [0, 1, 2, 3, 4, 5, 6, 7, 8, u32::MAX] {
            watch.flaps = flaps;
            waits.push(watch.probation(&rules).as_secs());
        }
        assert_eq!(waits, [0, 0, 0, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn a_restart_is_noticed_with_the_last_good_heartbeat() {
        let mut sim = Sim::new(Health::default());
        sim.run(ms(2_500), |_| Does::Answers);
        sim.created = 3;
        sim.run(secs(6), |_| Does::Answers);
        let last_good = sim.start + ms(2_001 + ROUND);
        assert_eq!(sim.changes(), [Change::Online, Change::Restarted { last_good }]);
        // What it can do now is asked at once.
        let versions: Vec<Duration> = sim
            .asked
            .iter()
            .filter(|(_, probe)| *probe == Probe::Version)
            .map(|(at, _)| *at)
            .collect();
        assert_eq!(versions, [Duration::ZERO, ms(3_001 + ROUND)]);
    }

    #[test]
    fn a_restart_while_it_was_offline_is_noticed_when_it_is_back() {
        let mut sim = Sim::new(Health::default());
        sim.run(ms(2_500), |_| Does::Answers);
        sim.created = 0;
        sim.run(secs(20), |at| {
            if at < secs(9) {
                Does::Refuses
            } else {
                Does::Answers
            }
        });
        let last_good = sim.start + ms(2_001 + ROUND);
        assert_eq!(
            sim.changes(),
            [
                Change::Online,
                Change::Offline(Why::Refused(REFUSED)),
                Change::Online,
                Change::Restarted { last_good }
            ]
        );
        assert!(sim.changes[3].0 < sim.changes[2].0 + ms(20), "{:?}", sim.changes);
    }

    #[test]
    fn a_suspect_is_probed_at_once_but_not_all_the_time() {
        let mut sim = Sim::new(Health::default());
        sim.run(ms(2_500), |_| Does::Answers);
        assert_eq!(sim.watch.due(), sim.start + ms(3_000 + ROUND));
        sim.watch.suspect(sim.now, &sim.rules);
        assert_eq!(sim.watch.due(), sim.now);
        sim.run(ms(2_600), |_| Does::Answers);
        // Just probed, a quarter of the interval has to pass.
        sim.watch.suspect(sim.now, &sim.rules);
        assert_eq!(sim.watch.due(), sim.start + ms(2_750));
        assert_eq!(sim.changes(), [Change::Online]);
        // While a probe is under way its end is waited for.
        sim.now = sim.watch.due();
        assert!(sim.watch.next(sim.now, &sim.rules).is_some());
        sim.watch.suspect(sim.now, &sim.rules);
        assert_eq!(sim.watch.next(sim.now, &sim.rules), None);
    }

    #[test]
    fn our_own_absence_is_not_held_against_the_member() {
        let mut sim = Sim::new(Health {
            fall: 1,
            ..Health::default()
        });
        sim.run(ms(2_500), |_| Does::Answers);
        sim.now = sim.watch.due();
        assert_eq!(sim.watch.next(sim.now, &sim.rules), Some(Probe::Counts));
        // The process was stopped for half a minute; the probe's end is told at last.
        sim.now += secs(30);
        assert_eq!(sim.watch.missed(sim.now, &sim.rules), Change::None);
        // One more is sent at once, and that one counts.
        assert_eq!(sim.watch.next(sim.now, &sim.rules), Some(Probe::Counts));
        sim.now += secs(30);
        assert_eq!(
            sim.watch.missed(sim.now, &sim.rules),
            Change::Offline(Why::Silent { probes: 1 })
        );
    }

    #[test]
    fn a_probe_whose_end_is_never_told_is_sent_again() {
        let mut sim = Sim::new(Health::default());
        assert!(sim.watch.next(sim.now, &sim.rules).is_some());
        assert_eq!(sim.watch.due(), sim.now + secs(6));
        assert_eq!(sim.watch.next(sim.now + secs(5), &sim.rules), None);
        assert_eq!(
            sim.watch.next(sim.now + secs(6), &sim.rules),
            Some(Probe::Version)
        );
    }

    #[test]
    fn what_was_not_asked_for_changes_nothing() {
        let mut sim = Sim::new(Health::default());
        assert_eq!(
            sim.watch.answered(sim.now, &sim.rules, Answer::Version),
            Change::None
        );
        assert_eq!(sim.watch.missed(sim.now, &sim.rules), Change::None);
        assert_eq!((sim.watch.state(), sim.watch.due()), (State::Unprobed, sim.start));
    }

    #[test]
    fn reasons_read_well() {
        let reasons = [
            Why::NotProbed,
            Why::Silent { probes: 1 },
            Why::Silent { probes: 2 },
            Why::Refused(REFUSED),
            Why::NoName {
                error: "no such name".to_owned(),
                retry: secs(2),
            },
        ];
        let texts: Vec<String> = reasons.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "not probed yet",
                "1 probe unanswered",
                "2 probes unanswered",
                "refused",
                "the name is not found: no such name; looked up again every 2 s"
            ]
        );
    }
}
