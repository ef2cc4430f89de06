//! The last hour, in rings of one point for each five seconds, and the changes in it. Pure: time comes in as seconds
//! since 1970.

use std::collections::{HashMap, VecDeque};

use serde_json::{Value, json};

use super::document::{self, Document, count, counter, float, is_online, members, number, text};

/// Seconds of a point: an hour is as many points as a wide page has room for.
pub const STEP: u64 = 5;
/// Points that are kept: an hour.
pub(super) const STEPS: usize = 720;
/// Clusters and members with a past of their own, of 3 KiB each and plot: as many members as a daemon of 64 × 64 has.
pub const PASTS_MAX: usize = 64 * 64 + 64;
/// Changes that are kept; the oldest one goes.
pub const CHANGES_MAX: usize = 100;

/// One curve. A point is the mean of what was seen in its time, NaN where nothing was.
#[derive(Debug, Default)]
struct Curve {
    points: VecDeque<f32>,
    sum: f64,
    seen: u32,
}

impl Curve {
    fn add(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.sum += value;
            self.seen += 1;
        }
    }

    /// A step is over, and so many after it in which nothing was seen.
    fn close(&mut self, steps: u64) {
        #[expect(clippy::cast_possible_truncation, reason = "a plot needs no more")]
        let mean = (self.sum / f64::from(self.seen)) as f32;
        for empty in 0..steps.min(all_steps()) {
            if self.points.len() >= STEPS {
                self.points.pop_front();
            }
            self.points.push_back(if empty == 0 { mean } else { f32::NAN });
        }
        (self.sum, self.seen) = (0.0, 0);
    }

    /// The newest `wanted` points, as JSON; `null` where nothing was seen.
    fn newest(&self, wanted: usize) -> Value {
        let missing = wanted.saturating_sub(self.points.len());
        let skipped = self.points.len().saturating_sub(wanted);
        let known = self
            .points
            .iter()
            .skip(skipped)
            .map(|&point| rounded(f64::from(point)));
        std::iter::repeat_n(Value::Null, missing).chain(known).collect()
    }
}

fn all_steps() -> u64 {
    u64::try_from(STEPS).unwrap_or(u64::MAX)
}

/// With six digits behind the point; `null` for what is no number.
pub(super) fn rounded(value: f64) -> Value {
    let value = (value * 1e6).round() / 1e6;
    value.is_finite().then_some(value).into()
}

#[derive(Debug, Default)]
struct Past {
    calls: Curve,
    sessions: Curve,
    errors: Curve,
    delays: HashMap<String, Curve>,
}

impl Past {
    fn close(&mut self, steps: u64) {
        for curve in [&mut self.calls, &mut self.sessions, &mut self.errors] {
            curve.close(steps);
        }
        self.delays.values_mut().for_each(|delay| delay.close(steps));
        // A member that is gone for an hour has no past any more.
        self.delays
            .retain(|_, delay| delay.points.iter().any(|point| !point.is_nan()));
    }

    fn is_over(&self) -> bool {
        self.sessions.points.iter().all(|point| point.is_nan())
    }
}

/// What changed, and when.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Change {
    /// Seconds since 1970.
    pub(super) at: f64,
    /// Empty for what happened to the daemon.
    pub(super) cluster: String,
    /// Empty likewise.
    pub(super) member: String,
    /// `offline`, `online`, and of the daemon `away`, `back`, `restarted`.
    pub(super) what: &'static str,
    /// In the daemon's words.
    pub(super) why: String,
}

/// What a cluster did from one sample to the next, a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Rates {
    /// New calls.
    pub(super) calls: Option<f64>,
    /// Commands that were not answered well.
    pub(super) errors: Option<f64>,
    /// All commands.
    pub(super) commands: Option<f64>,
}

/// The last hour.
#[derive(Debug, Default)]
pub(super) struct History {
    /// The step that is being filled.
    step: u64,
    all: Past,
    clusters: HashMap<String, Past>,
    changes: VecDeque<Change>,
}

impl History {
    /// Takes in what was seen `now`, and gives the rates of each cluster since `before`, in its order.
    pub(super) fn saw(&mut self, now: f64, seen: &Document, before: Option<(f64, &Document)>) -> Vec<Rates> {
        self.turn(now);
        // After a restart its counters are less than they were.
        let restarted = before.is_some_and(|(_, before)| seen.uptime() < before.uptime());
        if restarted {
            self.change(now, "restarted", String::new());
        }
        let before = before.filter(|_| !restarted);
        let rates: Vec<Rates> = seen
            .clusters()
            .iter()
            .map(|cluster| {
                let earlier = before
                    .and_then(|(at, document)| Some((now - at, document.cluster(text(cluster, "name"))?)));
                if let Some((_, earlier)) = earlier {
                    self.compare(now, earlier, cluster);
                }
                rates(earlier, cluster)
            })
            .collect();
        self.fill(seen, &rates);
        rates
    }

    /// The daemon does not answer any more.
    pub(super) fn lost(&mut self, now: f64, why: &str) {
        self.turn(now);
        self.change(now, "away", why.to_owned());
    }

    /// It answers again.
    pub(super) fn found(&mut self, now: f64) {
        self.change(now, "back", String::new());
    }

    /// What changed, the oldest first.
    pub(super) fn changes(&self) -> impl DoubleEndedIterator<Item = &Change> {
        self.changes.iter()
    }

    /// The points after `after` (seconds since 1970), of one cluster with its members' delays or of all together.
    pub(super) fn since(&self, after: u64, cluster: Option<&str>) -> Value {
        let end = self.step.saturating_mul(STEP);
        let wanted = usize::try_from(end.saturating_sub(after) / STEP).unwrap_or(STEPS);
        let wanted = wanted.min(STEPS);
        let none = Past::default();
        let past = match cluster {
            None => &self.all,
            Some(name) => self.clusters.get(name).unwrap_or(&none),
        };
        let delays: serde_json::Map<String, Value> = past
            .delays
            .iter()
            .map(|(name, curve)| (name.clone(), curve.newest(wanted)))
            .collect();
        json!({
            "step": STEP,
            "steps": STEPS,
            "end": end,
            "calls": past.calls.newest(wanted),
            "sessions": past.sessions.newest(wanted),
            "errors": past.errors.newest(wanted),
            "delays": delays,
        })
    }

    /// Closes the steps that are over.
    fn turn(&mut self, now: f64) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "seconds since 1970"
        )]
        let step = now.max(0.0) as u64 / STEP;
        // A clock that was set back: the step goes on until it has been caught up.
        let over = step.saturating_sub(self.step);
        if over == 0 {
            return;
        }
        self.step = step;
        self.all.close(over);
        self.clusters.values_mut().for_each(|past| past.close(over));
        self.clusters.retain(|_, past| !past.is_over());
    }

    fn fill(&mut self, seen: &Document, rates: &[Rates]) {
        let mut pasts: usize = self.clusters.values().map(|past| 1 + past.delays.len()).sum();
        let (mut calls, mut errors, mut sessions) = (None, None, 0.0);
        let add = |sum: &mut Option<f64>, value: Option<f64>| {
            if let Some(value) = value {
                *sum = Some(sum.unwrap_or_default() + value);
            }
        };
        for (cluster, rates) in seen.clusters().iter().zip(rates) {
            let bound = number(cluster, "bound").unwrap_or_default();
            sessions += bound;
            add(&mut calls, rates.calls);
            add(&mut errors, rates.errors);
            let name = text(cluster, "name");
            if !self.clusters.contains_key(name) {
                if pasts >= PASTS_MAX {
                    continue;
                }
                pasts += 1;
            }
            let past = self.clusters.entry(name.to_owned()).or_default();
            past.calls.add(rates.calls);
            past.errors.add(rates.errors);
            past.sessions.add(Some(bound));
            for member in members(cluster) {
                let name = text(member, "name");
                if let Some(delay) = past.delays.get_mut(name) {
                    delay.add(number(member, "average_delay"));
                } else if pasts < PASTS_MAX {
                    pasts += 1;
                    let mut delay = Curve::default();
                    delay.add(number(member, "average_delay"));
                    past.delays.insert(name.to_owned(), delay);
                }
            }
        }
        if seen.clusters().is_empty() {
            (calls, errors) = (Some(0.0), Some(0.0));
        }
        self.all.calls.add(calls);
        self.all.errors.add(errors);
        self.all.sessions.add(Some(sessions));
    }

    /// Notes which members of a cluster went, came, or did both between two samples.
    fn compare(&mut self, now: f64, earlier: &Value, cluster: &Value) {
        let earlier: HashMap<&str, &Value> = members(earlier)
            .iter()
            .map(|member| (text(member, "name"), member))
            .collect();
        for member in members(cluster) {
            let Some(earlier) = earlier.get(text(member, "name")) else {
                continue;
            };
            let online = is_online(member);
            let went = |value: &Value| counter(value, "went_offline");
            if is_online(earlier) == online && went(earlier) == went(member) {
                continue;
            }
            let since = number(member, "since").unwrap_or_default();
            self.keep(Change {
                at: now - since,
                cluster: text(cluster, "name").to_owned(),
                member: text(member, "name").to_owned(),
                what: if online { "online" } else { "offline" },
                why: text(member, "reason").to_owned(),
            });
        }
    }

    fn change(&mut self, at: f64, what: &'static str, why: String) {
        self.keep(Change {
            at,
            cluster: String::new(),
            member: String::new(),
            what,
            why,
        });
    }

    fn keep(&mut self, change: Change) {
        if self.changes.len() >= CHANGES_MAX {
            self.changes.pop_front();
        }
        self.changes.push_back(change);
    }
}

/// What a cluster did in the seconds since it was `earlier` seen.
fn rates(earlier: Option<(f64, &Value)>, cluster: &Value) -> Rates {
    let Some((seconds, earlier)) = earlier.filter(|(seconds, _)| *seconds > 0.0) else {
        return Rates::default();
    };
    let rate = |before: u64, now: u64| now.checked_sub(before).map(|grown| float(grown) / seconds);
    let both = |name| Some((counter(earlier, name)?, counter(cluster, name)?));
    let ((good_before, bad_before), (good, bad)) = (document::commands(earlier), document::commands(cluster));
    Rates {
        calls: both("sessions_bound").and_then(|(before, now)| rate(before, now)),
        errors: rate(bad_before, bad),
        commands: rate(good_before + bad_before, good + bad),
    }
}

/// Sessions that a member has, by its own count or by ours.
pub(super) fn sessions(member: &Value) -> Option<u64> {
    count(member, "active_sessions").or_else(|| count(member, "bound"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::fake::{Fake, cluster, member};
    use crate::status::fake::document;

    /// Clusters with one member, its delay and state, and so many calls bound.
    fn sample(bound: u64, online: bool) -> Document {
        let mut proxy = member("M1", 1, 1, 1);
        proxy.online = online;
        proxy.why = "2 probes unanswered".into();
        proxy.since = core::time::Duration::from_secs(2);
        proxy.delay = online.then_some(core::time::Duration::from_millis(3));
        let mut one = cluster("C", "/c", vec![proxy]);
        one.counters[5] = bound;
        one.commands = vec![('U', bound, bound / 2, 0)];
        document(&[one])
    }

    #[test]
    fn a_point_is_the_mean_of_its_five_seconds() {
        let mut history = History::default();
        let samples: Vec<Document> = (0..6).map(|n| sample(n * 10, true)).collect();
        let mut before = None;
        for (now, seen) in (1000..).zip(&samples) {
            let rates = history.saw(f64::from(now), seen, before);
            assert_eq!(rates[0].calls, before.map(|_| 10.0));
            before = Some((f64::from(now), seen));
        }
        let past = history.since(1000, Some("C"));
        assert_eq!(past["end"], 1005);
        assert_eq!(past["calls"], serde_json::json!([10.0]));
        assert_eq!(past["errors"], serde_json::json!([5.0]));
        assert_eq!(past["delays"]["M1"], serde_json::json!([0.003]));
        assert_eq!(history.since(1005, None)["calls"], serde_json::json!([]));
    }

    #[test]
    fn time_in_which_nothing_was_seen_is_a_gap() {
        let mut history = History::default();
        let seen = sample(0, true);
        history.saw(1000.0, &seen, None);
        history.saw(1021.0, &seen, Some((1000.0, &seen)));
        assert_eq!(
            history.since(1000, None)["sessions"].to_string(),
            "[3.0,null,null,null]"
        );
    }

    #[test]
    fn a_ring_holds_an_hour_and_forgets_who_is_gone() {
        let mut history = History::default();
        let seen = sample(0, true);
        let none = document(&[]);
        history.saw(1000.0, &seen, None);
        history.saw(1005.0, &none, Some((1000.0, &seen)));
        assert_eq!(history.clusters.len(), 1);
        for step in 0..800 {
            history.saw(f64::from(1010 + 5 * step), &none, None);
        }
        assert!(history.clusters.is_empty());
        assert_eq!(history.all.sessions.points.len(), STEPS);
        assert_eq!(history.since(0, None)["calls"].as_array().unwrap().len(), STEPS);
    }

    #[test]
    fn who_goes_and_comes_is_noted_with_its_time_and_why() {
        let mut history = History::default();
        let (up, down) = (sample(0, true), sample(0, false));
        history.saw(1000.0, &up, None);
        history.saw(1003.0, &down, Some((1000.0, &up)));
        history.saw(1004.0, &down, Some((1003.0, &down)));
        history.saw(1009.0, &up, Some((1004.0, &down)));
        let changes: Vec<(f64, &str, &str)> = history
            .changes()
            .map(|change| (change.at, change.what, &*change.member))
            .collect();
        assert_eq!(changes, [(1001.0, "offline", "M1"), (1007.0, "online", "M1")]);
        assert_eq!(history.changes().next().unwrap().why, "2 probes unanswered");
    }

    #[test]
    fn a_restart_is_no_negative_rate() {
        let mut history = History::default();
        let old = sample(90, true);
        let young = Document::read(sample(1, true).text.replace("\"uptime\":3600", "\"uptime\":1")).unwrap();
        let rates = history.saw(1001.0, &young, Some((1000.0, &old)));
        assert_eq!(rates[0], Rates::default());
        assert_eq!(history.changes().next().unwrap().what, "restarted");
    }

    #[test]
    fn changes_are_bounded() {
        let mut history = History::default();
        for n in 0..300 {
            history.lost(f64::from(n), "gone");
        }
        assert_eq!(history.changes().count(), CHANGES_MAX);
        assert!((history.changes().next().unwrap().at - 200.0).abs() < 0.1);
    }

    #[test]
    fn the_clusters_of_the_manual_have_a_past() {
        let seen = document(&Fake::of_the_manual().clusters.into_inner());
        let mut history = History::default();
        history.saw(1000.0, &seen, None);
        assert_eq!(history.clusters.len(), 2);
        assert_eq!(history.clusters["Supercluster#1"].delays.len(), 2);
    }
}
