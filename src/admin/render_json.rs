//! The listings as one JSON document each. Pure. Times are in seconds; what is not known is `null`.

use core::fmt::{Display, Write};
use core::time::Duration;

use super::render::{call_id_text, utilization};
use super::select::Selection;
use crate::config::{self, Value, model};
use crate::dispatch::histogram::{DELAY_BUCKETS, Histogram};
use crate::dispatch::view::{CLUSTER_COUNTERS, ClusterView, MEMBER_COUNTERS, MemberView, SessionsView};

/// `ls --json`: everything that is known of `clusters`, each with its number, and of the members that are selected.
pub fn clusters<'a>(
    clusters: impl Iterator<Item = (usize, &'a ClusterView)>,
    selection: Selection,
    uptime: Duration,
) -> String {
    document(uptime, |json| {
        json.key("clusters").array(clusters, |json, (n, view)| {
            json.object(|json| cluster(json, n, view, selection));
        });
    })
}

/// `stats --json`: the counters alone.
pub fn stats(clusters: &[(usize, ClusterView)], uptime: Duration) -> String {
    document(uptime, |json| {
        json.key("clusters").array(clusters.iter(), |json, (n, view)| {
            json.object(|json| {
                json.key("number").number(n);
                json.key("name").string(view.cluster.name.as_str());
                cluster_counters(json, view);
                json.key("members").array(view.members.iter(), |json, member| {
                    json.object(|json| {
                        json.key("name").string(member.member.name.as_str());
                        member_counters(json, member);
                    });
                });
            });
        });
    })
}

/// A part of `sessions --json`, the `first` one or the `last` one: all parts in a row are one document. `begins`: no
/// call was in an earlier part. A call-id is shown as `sessions` shows it.
pub fn sessions(part: &SessionsView, first: bool, begins: bool, last: bool) -> String {
    let mut json = Json::default();
    if first {
        json.text.push('{');
        json.key("bound").number(part.bound);
        json.key("sessions").text.push('[');
    }
    json.follows = !begins;
    for (call_id, member, age, deleted) in &part.listed {
        json.object(|json| {
            json.key("call_id").string(&call_id_text(call_id));
            json.key("member").string(member.as_str());
            json.key("age").seconds(Some(*age));
            json.key("deleted").bool(*deleted);
        });
    }
    if last {
        json.text.push_str("]}\n");
    }
    json.text
}

/// `locate --json`
pub fn located(member: &model::Name, age: Duration) -> String {
    alone(|json| {
        json.key("member").string(member.as_str());
        json.key("age").seconds(Some(age));
    })
}

/// `diff --json`: the lines, as they are.
pub fn lines(lines: &[String]) -> String {
    alone(|json| {
        json.key("differences")
            .array(lines.iter(), |json, line| json.string(line));
    })
}

fn document(uptime: Duration, fill: impl FnOnce(&mut Json)) -> String {
    alone(|json| {
        json.key("version").string(env!("CARGO_PKG_VERSION"));
        json.key("uptime").seconds(Some(uptime));
        fill(json);
    })
}

fn alone(fill: impl FnOnce(&mut Json)) -> String {
    let mut json = Json::default();
    json.object(fill);
    json.text.push('\n');
    json.text
}

fn cluster(json: &mut Json, n: usize, view: &ClusterView, selection: Selection) {
    let cluster = &view.cluster;
    json.key("number").number(n);
    json.key("name").string(cluster.name.as_str());
    json.key("protocol").string(cluster.protocol.as_str());
    json.key("address").string(&cluster.address.to_string());
    json.key("draining").bool(view.draining);
    json.key("active_members")
        .number(view.members.iter().filter(|member| member.online).count());
    json.key("inactive_members")
        .number(view.members.iter().filter(|member| !member.online).count());
    json.key("bound").number(view.bound);
    json.key("in_flight").number(view.in_flight);
    json.key("clients").number(view.clients);
    json.key("settings").object(|json| settings(json, cluster));
    cluster_counters(json, view);
    json.key("pools").array(cluster.pools.iter(), |json, pool| {
        json.object(|json| {
            for element in config::children(config::CLUSTER).filter(|element| element.name == config::POOL) {
                for attribute in element.attributes {
                    json.key(attribute.name).value(&attribute.value(pool));
                }
            }
        });
    });
    let shown = view.members.iter().filter(|member| selection.shows(member));
    json.key("members").array(shown, |json, view| {
        json.object(|json| member(json, view));
    });
}

/// As in a file; an element that is one attribute is its value, a relay that is not wanted `null`.
fn settings(json: &mut Json, cluster: &model::Cluster) {
    let is_setting =
        |element: &&config::Element| !element.attributes.is_empty() && element.name != config::POOL;
    for element in config::children(config::CLUSTER).filter(is_setting) {
        json.key(element.name);
        let leaves = element.children();
        let leaves: Vec<_> = leaves
            .filter_map(|leaf| Some((leaf.name, leaf.value(cluster)?)))
            .collect();
        match element.attributes {
            [attribute] if leaves.is_empty() => json.value(&attribute.value(cluster)),
            _ if !leaves.is_empty() && leaves.iter().all(|(_, value)| *value == Value::None) => json.null(),
            attributes => json.object(|json| {
                let attributes = attributes.iter().map(|a| (a.name, a.value(cluster)));
                for (name, value) in leaves.into_iter().chain(attributes) {
                    json.key(name).value(&value);
                }
            }),
        }
    }
}

fn member(json: &mut Json, view: &MemberView) {
    let member = &view.member;
    // That it drains no file can say.
    for element in config::children(config::MEMBER).filter(|element| element.name != "status") {
        json.key(element.name)
            .value(&element.value(member).unwrap_or(Value::None));
    }
    json.key("status").string(member.status.as_str());
    json.key("found_by");
    match &member.found_by {
        Some(pool) => json.string(pool.as_str()),
        None => json.null(),
    }
    json.key("state")
        .string(if view.online { "online" } else { "offline" });
    json.key("reason").string(&view.why);
    json.key("tried_again_in").seconds(view.next_try);
    json.key("lacks");
    match &view.lacks {
        Some(lacks) => json.array(lacks.iter(), |json, lack| json.string(lack)),
        None => json.null(),
    }
    json.key("since").seconds(Some(view.since));
    json.key("active_sessions");
    match view.active_sessions {
        Some(sessions) => json.number(sessions),
        None => json.null(),
    }
    json.key("bound").number(view.bound);
    json.key("capacity_utilization");
    match utilization(view) {
        Some(percent) => json.number(percent),
        None => json.null(),
    }
    json.key("average_delay").seconds(view.delay);
    json.key("in_flight").number(view.in_flight);
    json.key("deferred_deletes").number(view.deferred_deletes);
    member_counters(json, view);
}

fn cluster_counters(json: &mut Json, view: &ClusterView) {
    json.key("counters").counters(CLUSTER_COUNTERS, &view.counters);
    histogram(json, "delay", &view.times);
    json.key("commands").object(|json| {
        for (letter, answered, errors, ours) in &view.commands {
            json.key(&letter.to_string()).object(|json| {
                json.key("answered").number(answered);
                json.key("errors").number(errors);
                json.key("refused").number(ours);
            });
        }
    });
}

fn member_counters(json: &mut Json, view: &MemberView) {
    json.key("counters").counters(MEMBER_COUNTERS, &view.counters);
    histogram(json, "delay", &view.times);
}

fn histogram(json: &mut Json, key: &str, times: &Histogram) {
    json.key(key).object(|json| {
        json.key("sum").seconds(Some(times.sum));
        // The last bucket, for the rest, has no upper bound.
        let bounds = DELAY_BUCKETS
            .iter()
            .map(|&bound| Some(Duration::from_micros(bound)))
            .chain([None]);
        json.key("buckets")
            .array(bounds.zip(&times.buckets), |json, (bound, count)| {
                json.object(|json| {
                    json.key("up_to").seconds(bound);
                    json.key("count").number(count);
                });
            });
    });
}

/// Writes a document from its beginning to its end; commas come by themselves.
#[derive(Default)]
pub(super) struct Json {
    text: String,
    /// The next value or key follows another one.
    follows: bool,
}

impl Json {
    /// One object, as a line.
    pub(super) fn line(fill: impl FnOnce(&mut Self)) -> String {
        alone(fill)
    }

    fn comma(&mut self) {
        if core::mem::replace(&mut self.follows, true) {
            self.text.push(',');
        }
    }

    fn bracketed(&mut self, open: char, close: char, fill: impl FnOnce(&mut Self)) {
        self.comma();
        self.text.push(open);
        self.follows = false;
        fill(self);
        self.text.push(close);
        self.follows = true;
    }

    fn object(&mut self, fill: impl FnOnce(&mut Self)) {
        self.bracketed('{', '}', fill);
    }

    fn array<T>(&mut self, items: impl Iterator<Item = T>, mut each: impl FnMut(&mut Self, T)) {
        self.bracketed('[', ']', |json| items.for_each(|item| each(json, item)));
    }

    /// The key of the value that is written next.
    pub(super) fn key(&mut self, key: &str) -> &mut Self {
        self.string(key);
        self.text.push(':');
        self.follows = false;
        self
    }

    pub(super) fn string(&mut self, value: &str) {
        self.comma();
        self.text.push('"');
        for c in value.chars() {
            match c {
                '"' | '\\' => self.text.extend(['\\', c]),
                // U+2028 and U+2029 end a line in JavaScript, which reads JSON as well.
                '\u{2028}' | '\u{2029}' | '\u{7f}'..='\u{9f}' | '\0'..='\u{1f}' => {
                    let _ = write!(self.text, "\\u{:04x}", u32::from(c));
                }
                c => self.text.push(c),
            }
        }
        self.text.push('"');
    }

    /// A number as Rust prints it; one that JSON cannot say is `null`.
    pub(super) fn number(&mut self, value: impl Display) {
        self.comma();
        let before = self.text.len();
        let _ = write!(self.text, "{value}");
        if self
            .text
            .get(before..)
            .is_some_and(|text| text.contains(|c: char| c.is_ascii_alphabetic()))
        {
            self.text.truncate(before);
            self.text.push_str("null");
        }
    }

    fn bool(&mut self, value: bool) {
        self.comma();
        let _ = write!(self.text, "{value}");
    }

    pub(super) fn null(&mut self) {
        self.comma();
        self.text.push_str("null");
    }

    /// A string, or `null`.
    pub(super) fn optional(&mut self, value: Option<impl Display>) {
        match value {
            Some(value) => self.string(&value.to_string()),
            None => self.null(),
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::None | Value::Off => self.null(),
            Value::Whole(number) => self.number(number),
            Value::Time(time) => self.seconds(Some(*time)),
            Value::Text(text) => self.string(text),
        }
    }

    pub(super) fn seconds(&mut self, time: Option<Duration>) {
        match time {
            Some(time) => self.number(time.as_secs_f64()),
            None => self.null(),
        }
    }

    fn counters(&mut self, names: &[(&str, &str)], counts: &[u64]) {
        self.object(|json| {
            for ((name, _), count) in names.iter().zip(counts) {
                json.key(name).number(count);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::fake::{Fake, cluster, member};
    use crate::admin::operator::Operator;

    const HOUR: Duration = Duration::from_secs(3600);

    fn parsed(text: &str) -> serde_json::Value {
        assert_eq!(text.lines().count(), 1, "one line: {text}");
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_list_says_everything() {
        let all = Fake::of_the_manual().clusters();
        let json = parsed(&clusters(all.iter().enumerate(), Selection::default(), HOUR));
        assert_eq!(json["uptime"], 3600.0);
        let first = &json["clusters"][0];
        assert_eq!(
            (&first["number"], &first["name"]),
            (&0.into(), &"Supercluster#1".into())
        );
        assert_eq!(first["address"], "/var/run/rtpproxy.sock");
        assert_eq!(first["active_members"], 2);
        assert_eq!(first["settings"]["failover"]["timeout"], 0.25);
        assert_eq!(first["settings"]["disconnect_notify"], serde_json::Value::Null);
        assert_eq!(first["commands"]["U"]["errors"], 1);
        assert_eq!(first["counters"]["failovers"], 5);
        assert_eq!(first["delay"]["sum"], 0.04);
        let proxy = &first["members"][1];
        assert_eq!(
            (&proxy["name"], &proxy["weight"]),
            (&"RTPPROXY2".into(), &0.into())
        );
        assert_eq!(
            (&proxy["state"], &proxy["status"]),
            (&"online".into(), &"ACTIVE".into())
        );
        assert_eq!(proxy["average_delay"], 0.000_312);
        assert_eq!(
            proxy["counters"].as_object().unwrap().len(),
            MEMBER_COUNTERS.len()
        );
        let buckets = proxy["delay"]["buckets"].as_array().unwrap();
        assert_eq!(buckets.len(), DELAY_BUCKETS.len() + 1);
        assert_eq!(
            (&buckets[0]["up_to"], &buckets[DELAY_BUCKETS.len()]["up_to"]),
            (&0.000_05.into(), &serde_json::Value::Null)
        );
        // What is not known is not zero.
        let away = &json["clusters"][1]["members"][0];
        assert_eq!(
            (&away["state"], &away["active_sessions"]),
            (&"offline".into(), &serde_json::Value::Null)
        );
        assert_eq!(away["average_delay"], serde_json::Value::Null);
        assert_eq!(away["reason"], "2 probes unanswered");
        assert_eq!(away["tried_again_in"], serde_json::Value::Null);
        assert_eq!(away["lacks"], serde_json::json!([]));
    }

    #[test]
    fn one_cluster_keeps_its_number() {
        let all = Fake::of_the_manual().clusters();
        let json = parsed(&clusters([(1, &all[1])].into_iter(), Selection::default(), HOUR));
        assert_eq!(json["clusters"].as_array().unwrap().len(), 1);
        assert_eq!(json["clusters"][0]["number"], 1);
    }

    #[test]
    fn the_counters_stand_alone_too() {
        let json = parsed(&stats(&Fake::of_the_manual().numbered(), HOUR));
        assert_eq!(
            json["clusters"][1]["members"][1]["counters"]["spoofed_replies"],
            7
        );
        assert_eq!(json["clusters"][1]["counters"]["commands"], 5);
    }

    #[test]
    fn sessions_and_their_places_are_documents() {
        let fake = Fake::of_the_manual();
        let part = fake.sessions("Supercluster#1", None, 0, 9).unwrap();
        let json = parsed(&sessions(&part, true, true, true));
        assert_eq!(json["bound"], 2);
        let second = serde_json::json!(
            {"call_id": "b\\x0a2", "member": "RTPPROXY1", "age": 700, "deleted": true}
        );
        assert_eq!(json["sessions"][1], second);
        let (member, age) = fake.locate("Supercluster#1", b"a1@host").unwrap().unwrap();
        assert_eq!(
            parsed(&located(&member, age)),
            serde_json::json!({"member": "RTPPROXY1", "age": 12})
        );
        assert_eq!(
            parsed(&lines(&["a \"b\"".to_owned()])),
            serde_json::json!({"differences": ["a \"b\""]})
        );
    }

    #[test]
    fn names_and_reasons_are_escaped() {
        let odd = "\"\\#é</script>";
        let mut proxy = member(odd, 1, 1, 1);
        proxy.why = "line\nend \u{1} \u{7f} tab\t \u{2028}".into();
        let all = [cluster(odd, "/tmp/a\"b\\c", vec![proxy])];
        let json = parsed(&clusters(all.iter().enumerate(), Selection::default(), HOUR));
        assert_eq!(json["clusters"][0]["name"], odd);
        assert_eq!(json["clusters"][0]["address"], "/tmp/a\"b\\c");
        assert_eq!(
            json["clusters"][0]["members"][0]["reason"],
            "line\nend \u{1} \u{7f} tab\t \u{2028}"
        );
    }

    #[test]
    fn no_clusters_and_no_members_are_empty_lists() {
        assert_eq!(
            parsed(&clusters([].into_iter(), Selection::default(), HOUR))["clusters"],
            serde_json::json!([])
        );
        let all = [(0, cluster("C", "/c", vec![]))];
        assert_eq!(
            parsed(&stats(&all, HOUR))["clusters"][0]["members"],
            serde_json::json!([])
        );
    }

    #[test]
    fn a_number_that_json_cannot_say_is_null() {
        let mut json = Json::default();
        json.array([f64::NAN, f64::INFINITY, 1.5, 1e300].into_iter(), Json::number);
        let values = parsed(&json.text);
        assert_eq!(
            (&values[0], &values[1], &values[2]),
            (&serde_json::Value::Null, &serde_json::Value::Null, &1.5.into())
        );
    }
}
