//! What can come next on the prompt, by the table of commands and the names that the daemon knows. Pure: the names
//! come in through [`Names`].

use super::own;
use crate::admin::commands;
use crate::config::model::{Protocol, Status};
use crate::config::pairs::setting_keys;

/// Where the names come from.
pub(super) trait Names {
    /// All clusters.
    fn clusters(&mut self) -> Vec<String>;
    /// The members of one.
    fn members(&mut self, cluster: &str) -> Vec<String>;
}

/// Where the unfinished word of `line` starts, and what it can become. `line` ends at the cursor.
pub(super) fn complete(line: &str, names: &mut impl Names) -> (usize, Vec<String>) {
    let start = line
        .rfind(char::is_whitespace)
        .map_or(0, |at| line.len() - after(line, at).len());
    let (before, unfinished) = line.split_at(start);
    let words: Vec<&str> = before.split_whitespace().collect();
    let Some((first, words)) = words.split_first() else {
        return (
            start,
            starting_with(unfinished, commands::names().chain(own_names()).map(whole)),
        );
    };
    // Forms of one command share slots: each is asked for once.
    let mut slots: Vec<Slot> = Vec::new();
    let daemons = commands::forms(first).map(|entry| (entry.usage, entry.actions));
    let forms = daemons.chain(own::find(first).map(|entry| (entry.usage, &[][..])));
    for slot in forms.flat_map(|(usage, actions)| next_slots(usage, actions, words)) {
        if slots.iter().all(|earlier| earlier.bare() != slot.bare()) {
            slots.push(slot);
        }
    }
    let mut found: Vec<String> = Vec::new();
    for slot in slots {
        match slot.kind() {
            Kind::Words(options) => found.extend(options),
            Kind::Command => found.extend(commands::names().chain(own_names()).map(whole)),
            Kind::Cluster => found.extend(names.clusters().iter().map(whole)),
            Kind::Member => {
                let cluster = words.iter().find(|word| !word.starts_with('-'));
                let members = names.members(cluster.copied().unwrap_or_default());
                found.extend(members.iter().map(whole));
            }
            // Nothing else ever stands where pairs may.
            Kind::Pairs(keys) => {
                let (at, options) = pairs(unfinished, &keys);
                return (start + at, options);
            }
            Kind::Other => {}
        }
    }
    (start, starting_with(unfinished, found.into_iter()))
}

fn own_names() -> impl Iterator<Item = &'static str> {
    own::OWN.iter().map(|entry| entry.name)
}

/// A word that needs nothing behind it: the next one can be typed at once.
fn whole(word: impl core::fmt::Display) -> String {
    format!("{word} ")
}

/// The rest of `line` behind the character at `at`.
fn after(line: &str, at: usize) -> &str {
    let mut rest = line.get(at..).unwrap_or_default().chars();
    rest.next();
    rest.as_str()
}

fn starting_with(beginning: &str, options: impl Iterator<Item = String>) -> Vec<String> {
    // Keywords are taken in any case, names are not: a name that differs in case alone is replaced by the right one.
    let fits = |option: &String| {
        option
            .get(..beginning.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(beginning))
    };
    options.filter(fits).collect()
}

/// One word of a usage.
#[derive(Clone, Copy)]
struct Slot {
    text: &'static str,
    /// The words that tell forms of its command apart.
    actions: &'static [&'static str],
}

enum Kind {
    Words(Vec<String>),
    Command,
    Cluster,
    Member,
    Pairs(Vec<&'static str>),
    Other,
}

impl Slot {
    fn bare(self) -> &'static str {
        self.text
            .trim_start_matches('[')
            .trim_end_matches(['[', ']', '…'])
    }

    fn is_optional(self) -> bool {
        self.text.starts_with('[')
    }

    fn kind(self) -> Kind {
        match self.bare() {
            "CLUSTER" => Kind::Cluster,
            "NAME" => Kind::Member,
            "COMMAND" => Kind::Command,
            "limit=N" => Kind::Words(vec!["limit=".to_owned()]),
            bare if bare.starts_with("KEY=") => Kind::Pairs(setting_keys()),
            bare if bare.contains('|') && bare.contains('=') => {
                let (key, values) = bare.split_once('=').unwrap_or_default();
                Kind::Words(values.split('|').map(|value| format!("{key}={value} ")).collect())
            }
            bare if bare.contains('=') => {
                let pairs = bare.split(',').filter_map(|pair| pair.split('=').next());
                Kind::Pairs(pairs.map(|key| key.trim_matches(['[', ']'])).collect())
            }
            bare if bare.chars().any(|c| c.is_ascii_lowercase()) => {
                Kind::Words(bare.split('|').map(whole).collect())
            }
            _ => Kind::Other,
        }
    }

    /// Whether `word` may stand here.
    fn takes(self, word: &str) -> bool {
        match self.kind() {
            Kind::Words(options) => {
                let is_action = self.actions.first() == Some(&self.text);
                (is_action && commands::is_one_of(word, self.actions))
                    || options
                        .iter()
                        .any(|option| option.trim_end().eq_ignore_ascii_case(word))
            }
            Kind::Pairs(_) => word.contains('='),
            _ => !word.starts_with('-'),
        }
    }
}

/// The slots of a usage that the word after `words` may fill.
fn next_slots(usage: &'static str, actions: &'static [&'static str], words: &[&str]) -> Vec<Slot> {
    let mut slots = usage
        .split_whitespace()
        .skip(1)
        .map(|text| Slot { text, actions });
    for word in words {
        loop {
            match slots.next() {
                Some(slot) if slot.takes(word) => break,
                Some(slot) if slot.is_optional() => {}
                _ => return Vec::new(),
            }
        }
    }
    let mut next = Vec::new();
    for slot in slots {
        next.push(slot);
        if !slot.is_optional() {
            break;
        }
    }
    next
}

/// Where the unfinished pair of `text` starts or its value does, and what that can become.
fn pairs(text: &str, keys: &[&str]) -> (usize, Vec<String>) {
    let start = text.rfind(',').map_or(0, |at| at + 1);
    let (before, pair) = text.split_at(start);
    let Some((key, value)) = pair.split_once('=') else {
        let given = |key: &str| before.split(',').any(|pair| pair.split('=').next() == Some(key));
        let free = keys.iter().filter(|key| !given(key)).map(|key| format!("{key}="));
        return (start, starting_with(pair, free));
    };
    let values: Vec<&str> = match key {
        "protocol" => Protocol::ALL.iter().map(|protocol| protocol.as_str()).collect(),
        "status" => vec![Status::Active.as_str(), Status::Suspended.as_str()],
        _ => Vec::new(),
    };
    (
        text.len() - value.len(),
        starting_with(value, values.into_iter().map(str::to_owned)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Two;

    impl Names for Two {
        fn clusters(&mut self) -> Vec<String> {
            ["Super#1", "Super#2"].map(str::to_owned).into()
        }

        fn members(&mut self, cluster: &str) -> Vec<String> {
            if cluster == "Super#1" {
                vec!["R1".to_owned(), "S1".to_owned()]
            } else {
                Vec::new()
            }
        }
    }

    /// The line with what it can become, one a candidate.
    fn lines(line: &str) -> Vec<String> {
        let (start, found) = complete(line, &mut Two);
        found
            .into_iter()
            .map(|found| format!("{}{found}", &line[..start]))
            .collect()
    }

    #[test]
    fn commands_come_first() {
        assert_eq!(lines("s"), ["sessions ", "save ", "stats "]);
        assert_eq!(lines("MOD"), ["modify "]);
        assert_eq!(lines("").len(), commands::names().count() + own::OWN.len());
        assert_eq!(lines("to"), ["top "]);
        assert_eq!(lines("frob "), Vec::<String>::new());
    }

    #[test]
    fn then_clusters_actions_and_members() {
        assert_eq!(lines("modify "), ["modify Super#1 ", "modify Super#2 "]);
        assert_eq!(
            lines("modify Super#1 s"),
            ["modify Super#1 suspend ", "modify Super#1 set "]
        );
        assert_eq!(lines("modify Super#1 DELETE r"), ["modify Super#1 DELETE R1 "]);
        assert_eq!(
            lines("modify Super#1 remove R1 "),
            ["modify Super#1 remove R1 now "]
        );
        assert_eq!(lines("modify Super#1 delete R1 now "), Vec::<String>::new());
        assert_eq!(
            lines("wait Super#1 R1 o"),
            ["wait Super#1 R1 online ", "wait Super#1 R1 offline "]
        );
        assert_eq!(lines("wait Super#1 R1 gone "), ["wait Super#1 R1 gone -t "]);
        assert_eq!(lines("cluster d"), ["cluster delete "]);
        assert_eq!(
            lines("cluster delete "),
            ["cluster delete Super#1 ", "cluster delete Super#2 "]
        );
        assert_eq!(
            lines("sessions Super#1 "),
            [
                "sessions Super#1 R1 ",
                "sessions Super#1 S1 ",
                "sessions Super#1 limit="
            ]
        );
    }

    #[test]
    fn options_may_be_left_out() {
        assert_eq!(
            lines("ls ")[..4],
            ["ls -v ", "ls --json ", "ls Super#1 ", "ls Super#2 "]
        );
        assert_eq!(lines("ls Super#1 state=of"), ["ls Super#1 state=offline "]);
        assert_eq!(lines("ls Super#1 so").len(), 4);
        assert_eq!(lines("ls -v S")[..2], ["ls -v Super#1 ", "ls -v Super#2 "]);
        assert_eq!(
            lines("sessions --json Super#1 R"),
            ["sessions --json Super#1 R1 "]
        );
        assert_eq!(lines("stats --p"), ["stats --prometheus "]);
        assert_eq!(
            lines("test Super#1 "),
            ["test Super#1 R1 ", "test Super#1 S1 ", "test Super#1 --from "]
        );
        assert_eq!(lines("test Super#1 R1 --from "), Vec::<String>::new());
        assert_eq!(lines("te"), ["test "]);
        assert_eq!(lines("doctor Super#2"), ["doctor Super#2 "]);
        assert_eq!(lines("help mod"), ["help modify "]);
    }

    #[test]
    fn pairs_offer_the_keys_that_are_not_given() {
        assert_eq!(lines("modify Super#1 add na"), ["modify Super#1 add name="]);
        assert_eq!(
            lines("modify Super#1 add name=x,protocol=u"),
            [
                "modify Super#1 add name=x,protocol=UNIX",
                "modify Super#1 add name=x,protocol=UDP",
                "modify Super#1 add name=x,protocol=UDP6"
            ]
        );
        assert_eq!(
            lines("modify Super#1 add weight=1,w"),
            ["modify Super#1 add weight=1,wan_address="]
        );
        assert_eq!(
            lines("modify Super#1 set R1 we"),
            ["modify Super#1 set R1 weight="]
        );
        assert_eq!(
            lines("cluster add name=x,c"),
            ["cluster add name=x,capacity_limit="]
        );
    }

    #[test]
    fn any_text_can_be_completed() {
        for line in ["é", "ls é", "ls \u{2003}é", " ", "modify é é é=é,é", "\u{1f600} "] {
            let (start, _) = complete(line, &mut Two);
            assert!(line.is_char_boundary(start), "{line}");
        }
    }
}
