//! What `watch` and `trace` show, a line each. Pure. A line starts with its time, so none reads like the last one of a
//! reply.

use core::fmt::Write;
use core::time::Duration;

use super::render::call_id_text;
use super::render_json::Json;
use crate::dispatch::event::{Event, Subject, Traced};

/// One line, with its end.
pub trait News {
    /// For people.
    fn text(&self) -> String;
    /// For programs: one document.
    fn json(&self) -> String;
    /// Whether nothing more is to come.
    fn is_last(&self) -> bool {
        false
    }
}

impl News for Event {
    fn text(&self) -> String {
        let mut text = utc(self.at);
        let _ = match &self.subject {
            Subject::Member {
                cluster,
                member,
                address,
            } => write!(text, " member {member} of {cluster} ({address}): "),
            Subject::Cluster(name) => write!(text, " cluster {name}: "),
            Subject::Configuration => write!(text, " configuration: "),
            Subject::Daemon => write!(text, " daemon: "),
        };
        if let Some(old) = &self.old {
            let _ = write!(text, "{old} -> ");
        }
        text.push_str(&self.new);
        if !self.why.is_empty() {
            let _ = write!(text, ": {}", one_line(&self.why));
        }
        text.push('\n');
        text
    }

    fn json(&self) -> String {
        Json::line(|json| {
            json.key("time").string(&utc(self.at));
            let (kind, cluster, member, address) = match &self.subject {
                Subject::Member {
                    cluster,
                    member,
                    address,
                } => ("member", Some(cluster), Some(member), Some(address)),
                Subject::Cluster(name) => ("cluster", Some(name), None, None),
                Subject::Configuration => ("configuration", None, None, None),
                Subject::Daemon => ("daemon", None, None, None),
            };
            json.key("kind").string(kind);
            json.key("cluster").optional(cluster);
            json.key("member").optional(member);
            json.key("address").optional(address);
            json.key("old").optional(self.old.as_ref());
            json.key("new").string(&self.new);
            json.key("why").string(&self.why);
        })
    }
}

impl News for Traced {
    fn text(&self) -> String {
        let mut text = format!("{} {}", utc(self.at), self.step);
        if !self.call_id.is_empty() {
            let _ = write!(text, ", call-id = {}", call_id_text(&self.call_id));
        }
        let _ = write!(text, ", client = {}", self.client);
        if let Some(member) = &self.member {
            let _ = write!(text, ", RTPproxy = {member}");
        }
        if let Some(attempt) = self.attempt {
            let _ = write!(text, ", attempt = {attempt}");
        }
        if let Some(delay) = self.delay {
            let _ = write!(text, ", delay = {:.3} ms", delay.as_secs_f64() * 1e3);
        }
        if !self.why.is_empty() {
            let _ = write!(text, ", why = {}", self.why);
        }
        if let Some(command) = &self.command {
            let _ = write!(text, ", command = {}", words(command));
        }
        if !self.text.is_empty() {
            let _ = write!(text, ", text = {}", words(&self.text));
        }
        text.push('\n');
        text
    }

    fn json(&self) -> String {
        Json::line(|json| {
            json.key("time").string(&utc(self.at));
            json.key("step").string(&self.step.to_string());
            json.key("call_id").string(&call_id_text(&self.call_id));
            json.key("client").string(&self.client);
            json.key("member").optional(self.member.as_ref());
            json.key("attempt");
            match self.attempt {
                Some(attempt) => json.number(attempt),
                None => json.null(),
            }
            json.key("delay").seconds(self.delay);
            json.key("why").string(&self.why);
            json.key("command").optional(self.command.as_deref().map(words));
            json.key("text").string(&words(&self.text));
        })
    }

    fn is_last(&self) -> bool {
        self.ends_call
    }
}

/// Says that a client has not read fast enough.
pub fn lost(count: u64, json: bool) -> String {
    if json {
        return Json::line(|json| json.key("lost").number(count));
    }
    format!("… {count} lost: they came faster than they were read\n")
}

/// Bytes as a call-id is shown, but with blanks: `U c1 …`.
fn words(bytes: &[u8]) -> String {
    let words = bytes.split(|byte| *byte == b' ').map(call_id_text);
    words.collect::<Vec<_>>().join(" ")
}

/// Words of ours or of the system as one line.
fn one_line(text: &str) -> String {
    text.split(char::is_control).collect::<Vec<_>>().join(" ")
}

/// A time since the epoch of UNIX, as RFC 3339 writes it: `2026-11-26T02:06:42.850Z`.
pub fn utc(at: Duration) -> String {
    let (seconds, millis) = (at.as_secs(), at.subsec_millis());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March, in eras of 400, so that the leap day is the last of its year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::fake::{event, name, traced};

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, millis, want) in [
            (0, 0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.001Z"),
            (951_868_800, 0, "2000-03-01T00:00:00.000Z"),
            (1_795_659_602, 850, "2026-11-26T02:20:02.850Z"),
            (4_107_542_399, 999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000Z"),
        ] {
            let at = Duration::from_secs(seconds) + Duration::from_millis(millis);
            assert_eq!(utc(at), want);
        }
    }

    #[test]
    fn an_event_reads_like_the_log_and_parses() {
        let mut event = event("offline");
        assert_eq!(
            event.text(),
            "1970-01-01T00:00:01.500Z member RTPPROXY1 of Supercluster#1 (127.0.0.1:22222): \
             online -> offline: 2 probes unanswered\n"
        );
        let json: serde_json::Value = serde_json::from_str(&event.json()).unwrap();
        assert_eq!(
            (&json["kind"], &json["old"]),
            (&"member".into(), &"online".into())
        );
        event.subject = Subject::Cluster(name("C"));
        (event.old, event.why) = (None, "a\nb".into());
        assert_eq!(event.text(), "1970-01-01T00:00:01.500Z cluster C: offline: a b\n");
    }

    #[test]
    fn a_step_of_a_command_is_one_line_whatever_its_bytes() {
        let mut step = traced("c1", b"Uc0 c1 \xff\n 4000 a");
        assert_eq!(
            step.text(),
            "1970-01-01T00:00:01.500Z sent, call-id = c1, client = 127.0.0.1:5060, RTPproxy = RTPPROXY1, attempt = 1, \
             delay = 0.312 ms, why = chosen by weight, text = Uc0 c1 \\xff\\x0a 4000 a\n"
        );
        let json: serde_json::Value = serde_json::from_str(&step.json()).unwrap();
        assert_eq!((&json["attempt"], &json["call_id"]), (&1.into(), &"c1".into()));
        (step.member, step.attempt, step.delay) = (None, None, None);
        step.command = Some(b"Q c1 a b".to_vec());
        assert!(step.text().contains("client = 127.0.0.1:5060, why"));
        assert!(step.text().contains("weight, command = Q c1 a b, text"));
        (step.call_id, step.text) = (Vec::new(), Vec::new());
        assert!(step.text().starts_with("1970-01-01T00:00:01.500Z sent, client"));
        assert!(step.text().ends_with("command = Q c1 a b\n"));
        assert_eq!(lost(3, true), "{\"lost\":3}\n");
    }
}
