//! The commands that the client carries out itself, which the daemon knows nothing of: one table for the prompt, its
//! completion, `help`, the completion of the shells and the man page. Pure.

use crate::admin::commands;

/// Which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// The live view.
    Top,
    /// A call of our own.
    Test,
    /// All that can be looked at.
    Doctor,
    /// Whether calls can be carried here.
    Ready,
}

/// One row.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which.
    pub own: Own,
    /// The first word.
    pub name: &'static str,
    /// The whole form, as that of a command of the daemon.
    pub usage: &'static str,
    /// What it does, in one line.
    pub help: &'static str,
}

/// All of them, in the order of `help`.
pub const OWN: &[Entry] = &[
    Entry {
        own: Own::Top,
        name: "top",
        usage: "top [SECONDS]",
        help: "show all members of all clusters live, on a terminal; q ends it",
    },
    Entry {
        own: Own::Test,
        name: "test",
        usage: "test CLUSTER [NAME] [--from IP]",
        help: "make a call through a cluster, or through one member whatever its status, with media both ways, and say what \
               is wrong",
    },
    Entry {
        own: Own::Doctor,
        name: "doctor",
        usage: "doctor [CLUSTER]",
        help: "look at the configuration, rights, limits and each member, make a test call through each, and list what \
               is wrong with its remedy",
    },
    Entry {
        own: Own::Ready,
        name: "ready",
        usage: "ready [CLUSTER]",
        help: "whether each cluster has a member online that takes calls, as exit status: 0 yes, 1 no, 2 no daemon",
    },
];

/// The row that a command line asks for, in any case.
pub fn find(line: &str) -> Option<&'static Entry> {
    let word = line.split_whitespace().next()?;
    OWN.iter().find(|entry| entry.name.eq_ignore_ascii_case(word))
}

/// What a `help` asks of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Help {
    /// Nothing.
    No,
    /// One of our own commands.
    Of(&'static Entry),
    /// All commands: ours come after the daemon's.
    All,
}

/// Whether the command line is a `help`, and whose.
pub(super) fn help(line: &str) -> Help {
    let mut words = line.split_whitespace();
    let is_help = words.next().is_some_and(|word| {
        let mut forms = commands::forms(word);
        forms.any(|entry| entry.kind == commands::Kind::Help)
    });
    match (is_help, words.next(), words.next()) {
        (true, None, _) => Help::All,
        (true, Some(word), None) => find(word).map_or(Help::No, Help::Of),
        _ => Help::No,
    }
}

/// A row as the daemon's `help` shows its own.
pub(super) fn shown(entry: &Entry) -> String {
    format!("{}\n    {}\n", entry.usage, entry.help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_ours_by_its_first_word() {
        assert_eq!(find("TOP 5").map(|entry| entry.own), Some(Own::Top));
        assert_eq!(find("topology").or(find("ls top")).or(find("")), None);
        let daemons = commands::names().collect::<Vec<_>>();
        assert!(OWN.iter().all(|entry| !daemons.contains(&entry.name)));
    }

    #[test]
    fn help_is_about_ours_or_about_all() {
        assert!(matches!(help("help Top"), Help::Of(entry) if entry.name == "top"));
        assert_eq!(help("HELP"), Help::All);
        assert_eq!(help("help ls"), Help::No);
        assert_eq!(help("ls top"), Help::No);
    }
}
