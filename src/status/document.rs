//! What the daemon said last, `ls --json`, and how its parts are found. Pure.

use serde_json::Value;

/// The daemon's document: as it came, and read.
#[derive(Debug)]
pub(super) struct Document {
    /// One line, with its end.
    pub(super) text: String,
    root: Value,
}

impl Document {
    /// Reads the one line of `ls --json`.
    pub(super) fn read(text: String) -> Result<Self, String> {
        let root: Value = serde_json::from_str(&text).map_err(|error| format!("no JSON: {error}"))?;
        if root.get("clusters").is_none_or(|clusters| !clusters.is_array()) {
            return Err("no clusters in what the daemon says: is it another version?".to_owned());
        }
        Ok(Self { text, root })
    }

    /// The daemon's version.
    pub(super) fn version(&self) -> &str {
        text(&self.root, "version")
    }

    /// Seconds since the daemon's start.
    pub(super) fn uptime(&self) -> f64 {
        number(&self.root, "uptime").unwrap_or_default()
    }

    /// All clusters.
    pub(super) fn clusters(&self) -> &[Value] {
        list(&self.root, "clusters")
    }

    /// The cluster of that name, or of that number as `#0` and `0`, as the client takes it.
    pub(super) fn cluster(&self, name: &str) -> Option<&Value> {
        let named = self
            .clusters()
            .iter()
            .find(|cluster| text(cluster, "name") == name);
        named.or_else(|| {
            let number: u64 = name.strip_prefix('#').unwrap_or(name).parse().ok()?;
            self.clusters()
                .iter()
                .find(|cluster| count(cluster, "number") == Some(number))
        })
    }

    /// Members of all clusters.
    pub(super) fn members(&self) -> usize {
        self.clusters().iter().map(|cluster| members(cluster).len()).sum()
    }
}

/// The members of a cluster.
pub(super) fn members(cluster: &Value) -> &[Value] {
    list(cluster, "members")
}

/// Whether a member answers probes.
pub(super) fn is_online(member: &Value) -> bool {
    text(member, "state") == "online"
}

/// Whether a member takes new calls when it is online.
pub(super) fn is_active(member: &Value) -> bool {
    text(member, "status").eq_ignore_ascii_case("active")
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// A string; empty where there is none.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A number that may be `null`.
pub(super) fn number(value: &Value, key: &str) -> Option<f64> {
    value.get(key)?.as_f64()
}

/// A count that may be `null`.
pub(super) fn count(value: &Value, key: &str) -> Option<u64> {
    value.get(key)?.as_u64()
}

/// One of the counters of a cluster or a member.
pub(super) fn counter(value: &Value, name: &str) -> Option<u64> {
    count(value.get("counters")?, name)
}

/// Commands of a cluster in all letters: answered, and answered with an error or refused by the daemon.
pub(super) fn commands(cluster: &Value) -> (u64, u64) {
    let letters = cluster.get("commands").and_then(Value::as_object);
    let letters = letters.into_iter().flat_map(|letters| letters.values());
    letters.fold((0, 0), |(good, bad), letter| {
        let of = |key| count(letter, key).unwrap_or_default();
        (good + of("answered"), bad + of("errors") + of("refused"))
    })
}

/// A count as a float: exact below 2⁵³.
#[expect(
    clippy::cast_precision_loss,
    reason = "what is shown and drawn is 64-bit floats; exact below 2⁵³"
)]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::fake::of_the_manual;

    #[test]
    fn a_cluster_is_found_by_its_name_and_by_its_number() {
        let document = of_the_manual();
        for name in ["Supercluster#2", "#1", "1"] {
            let found = document.cluster(name).map(|cluster| text(cluster, "name"));
            assert_eq!(found, Some("Supercluster#2"), "{name}");
        }
        assert!(document.cluster("no").is_none() && document.cluster("7").is_none());
    }

    #[test]
    fn what_is_no_document_is_said_to_be_none() {
        assert!(
            Document::read("OK".to_owned())
                .unwrap_err()
                .starts_with("no JSON")
        );
        assert!(
            Document::read("{}".to_owned())
                .unwrap_err()
                .contains("another version")
        );
    }
}
