//! The one table of admin commands. The grammar, the read-only socket, `help`, the completion of the client and
//! the man page test all read it here. Pure.

/// Which command. [`super::grammar`] reads the arguments of each, [`super::apply`] carries each out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(
    missing_docs,
    reason = "each is one row of the table below, which says what it does"
)]
pub enum Kind {
    Ls,
    Add,
    Delete,
    Suspend,
    Resume,
    Set,
    ClusterAdd,
    ClusterDelete,
    Sessions,
    Locate,
    Reload,
    Check,
    Diff,
    Save,
    Wait,
    Stats,
    Watch,
    Trace,
    Version,
    Help,
    Quit,
}

/// What a command needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Taken on the read-only socket too.
    Reads,
    /// Refused there; logged with who asked.
    Changes,
}

/// One row: one form of a command.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which.
    pub kind: Kind,
    /// The first word: its name, then its other names.
    pub words: &'static [&'static str],
    /// The word that tells forms of one command apart, then its other names; empty where there is one form. It
    /// follows the cluster in `modify`, the command in `cluster`.
    pub actions: &'static [&'static str],
    /// The whole form. Capitals are values, the rest is typed as it stands.
    pub usage: &'static str,
    /// What it does, in one line.
    pub help: &'static str,
    /// What it needs.
    pub access: Access,
}

impl Entry {
    /// Its name and action, as in `modify delete`: for messages.
    pub fn title(&self) -> String {
        let title: Vec<_> = self
            .words
            .first()
            .into_iter()
            .chain(self.actions.first())
            .copied()
            .collect();
        title.join(" ")
    }
}

/// The commands, in the order of `help`.
pub const COMMANDS: &[Entry] = &[
    Entry {
        kind: Kind::Ls,
        words: &["ls"],
        actions: &[],
        usage: "ls [-v|--json] [CLUSTER] [state=online|offline] [sort=load|name|delay|sessions]",
        help: "list all clusters, or the members of one, those in a state or in another order; -v: in more detail; \
               --json: everything that is known",
        access: Access::Reads,
    },
    Entry {
        kind: Kind::Add,
        words: &["modify"],
        actions: &["add"],
        usage: "modify CLUSTER add name=NAME,protocol=PROTOCOL,address=ADDRESS,capacity=N,weight=N[,status=STATUS]\
                [,wan_address=IP][,lan_address=IP][,cmd_out_address=IP]",
        help: "add a member; it is probed at once",
        access: Access::Changes,
    },
    Entry {
        kind: Kind::Delete,
        words: &["modify"],
        actions: &["delete", "remove"],
        usage: "modify CLUSTER delete NAME [now]",
        help: "give a member no new sessions and take it out when it has none left; now: at once, sessions forgotten",
        access: Access::Changes,
    },
    Entry {
        kind: Kind::Suspend,
        words: &["modify"],
        actions: &["suspend", "pause"],
        usage: "modify CLUSTER suspend NAME",
        help: "give a member no new sessions; it serves those that it has",
        access: Access::Changes,
    },
    Entry {
        kind: Kind::Resume,
        words: &["modify"],
        actions: &["resume"],
        usage: "modify CLUSTER resume NAME",
        help: "make a suspended or draining member ACTIVE again",
        access: Access::Changes,
    },
    Entry {
        kind: Kind::Set,
        words: &["modify"],
        actions: &["set"],
        usage: "modify CLUSTER set NAME KEY=VALUE[,KEY=VALUE]…",
        help: "change weight, capacity, wan_address, lan_address or cmd_out_address of a member in place; address and \
               protocol only while nothing is bound to it",
        access: Access::Changes,
    },
    Entry {
        kind: Kind::ClusterAdd,
        words: &["cluster"],
        actions: &["add"],
        usage: "cluster add name=NAME,protocol=PROTOCOL,address=ADDRESS[,capacity_limit=LIMIT][,policy=POLICY]",
        help: "add a cluster with its own control socket",
        access: Access::Changes,
    },
    Entry {
        kind: Kind::ClusterDelete,
        words: &["cluster"],
        actions: &["delete", "remove"],
        usage: "cluster delete CLUSTER [now]",
        help: "close a cluster when it has no sessions left; now: at once",
        access: Access::Changes,
    },
    Entry {
        kind: Kind::Sessions,
        words: &["sessions"],
        actions: &[],
        usage: "sessions [--json] CLUSTER [NAME] [limit=N]",
        help: "count the bound call-ids of a cluster or a member and list N of them (100)",
        access: Access::Reads,
    },
    Entry {
        kind: Kind::Locate,
        words: &["locate"],
        actions: &[],
        usage: "locate [--json] CLUSTER CALL-ID",
        help: "say which member serves a call",
        access: Access::Reads,
    },
    Entry {
        kind: Kind::Reload,
        words: &["reload"],
        actions: &[],
        usage: "reload",
        help: "read the configuration file again and apply what differs",
        access: Access::Changes,
    },
    Entry {
        kind: Kind::Check,
        words: &["check"],
        actions: &[],
        usage: "check FILE",
        help: "check a configuration file and apply nothing of it",
        access: Access::Reads,
    },
    Entry {
        kind: Kind::Diff,
        words: &["diff"],
        actions: &[],
        usage: "diff [--json]",
        help: "compare what runs with the configuration file",
        access: Access::Reads,
    },
    Entry {
        kind: Kind::Save,
        words: &["save"],
        actions: &[],
        usage: "save [--force] [FILE]",
        help: "write what runs to the configuration file, or to FILE, and keep the old one as FILE.bak; --force: even \
               when the file has changed since it was read",
        access: Access::Changes,
    },
    Entry {
        kind: Kind::Wait,
        words: &["wait"],
        actions: &[],
        usage: "wait CLUSTER NAME online|offline|gone [-t SECONDS]",
        help: "answer when the member is so, or with an error after SECONDS (a day)",
        access: Access::Reads,
    },
    Entry {
        kind: Kind::Stats,
        words: &["stats"],
        actions: &[],
        usage: "stats [--json|--prometheus] [CLUSTER]",
        help: "show the counters since start, for each cluster and member, or for one cluster",
        access: Access::Reads,
    },
    Entry {
        kind: Kind::Watch,
        words: &["watch"],
        actions: &[],
        usage: "watch [--json]",
        help: "tell changes of members, reloads and takeovers as they happen",
        access: Access::Reads,
    },
    Entry {
        kind: Kind::Trace,
        words: &["trace"],
        actions: &[],
        usage: "trace [--json] CLUSTER CALL-ID|*|last [-t SECONDS] [limit=N]",
        help: "tell each command and reply of a call, or of all, as it happens; last: those of the last that failed or \
               were slow",
        access: Access::Reads,
    },
    Entry {
        kind: Kind::Version,
        words: &["version"],
        actions: &[],
        usage: "version",
        help: "show the version of the daemon",
        access: Access::Reads,
    },
    Entry {
        kind: Kind::Help,
        words: &["help"],
        actions: &[],
        usage: "help [COMMAND]",
        help: "show this, or the forms of one command",
        access: Access::Reads,
    },
    Entry {
        kind: Kind::Quit,
        words: &["quit", "q", "exit"],
        actions: &[],
        usage: "quit",
        help: "close the connection (also q, exit)",
        access: Access::Reads,
    },
];

/// All forms of the command called `word`, in any case; none where there is no such command.
pub fn forms(word: &str) -> impl Iterator<Item = &'static Entry> {
    COMMANDS.iter().filter(move |entry| is_one_of(word, entry.words))
}

/// Whether `word` is one of `names`, in any case.
pub fn is_one_of(word: &str, names: &[&str]) -> bool {
    names.iter().any(|name| name.eq_ignore_ascii_case(word))
}

/// The name of each command once, in the order of the table.
pub fn names() -> impl Iterator<Item = &'static str> {
    let mut last = "";
    COMMANDS
        .iter()
        .filter_map(|entry| entry.words.first().copied())
        .filter(move |&name| {
            let new = name != last;
            last = name;
            new
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::pairs;

    #[test]
    fn the_usage_of_a_command_names_its_keys_and_no_others() {
        for (kind, mut keys) in [
            (Kind::Add, pairs::member_keys()),
            (Kind::ClusterAdd, pairs::cluster_keys()),
        ] {
            let entry = COMMANDS.iter().find(|entry| entry.kind == kind).unwrap();
            let pairs = entry
                .usage
                .split([' ', ',', '['])
                .filter(|word| word.contains('='));
            let mut named: Vec<&str> = pairs.filter_map(|pair| pair.split('=').next()).collect();
            named.sort_unstable();
            keys.sort_unstable();
            assert_eq!(named, keys, "{}", entry.usage);
        }
        let set = COMMANDS.iter().find(|entry| entry.kind == Kind::Set).unwrap();
        for key in pairs::setting_keys() {
            assert!(set.help.contains(key), "{key}: {}", set.help);
        }
    }

    #[test]
    fn every_form_starts_with_its_name_and_says_its_action() {
        for entry in COMMANDS {
            assert_eq!(
                entry.usage.split_whitespace().next(),
                entry.words.first().copied()
            );
            if let Some(action) = entry.actions.first() {
                assert!(
                    entry.usage.split_whitespace().any(|word| word == *action),
                    "{}",
                    entry.usage
                );
            }
        }
    }

    #[test]
    fn no_two_forms_answer_to_the_same_words() {
        for (n, a) in COMMANDS.iter().enumerate() {
            for b in COMMANDS.iter().skip(n + 1) {
                let same_word = a.words.iter().any(|word| is_one_of(word, b.words));
                let same_action = a.actions.iter().any(|word| is_one_of(word, b.actions));
                assert!(
                    !same_word || (!same_action && !a.actions.is_empty()),
                    "{} {}",
                    a.usage,
                    b.usage
                );
            }
        }
    }

    #[test]
    fn names_are_told_once() {
        let names: Vec<_> = names().collect();
        assert_eq!(names.iter().filter(|name| **name == "modify").count(), 1);
        assert_eq!(names.first(), Some(&"ls"));
        assert_eq!(names.last(), Some(&"quit"));
    }
}
