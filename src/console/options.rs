//! The command line of the client. Pure: words in, what to do out.

use core::fmt::Write as _;
use core::time::Duration;
use std::ffi::OsString;
use std::path::PathBuf;

use getopts::ParsingStyle;

/// The admin socket, fixed when the program is built: the same for the daemon and the client. No search.
pub const DEFAULT_SOCKET: &str = match option_env!("RTP_CLUSTER_SOCKET") {
    Some(packaged) => packaged,
    None => "/var/run/rtp_cluster.sock",
};

/// How long a reply may take where `-t` does not say it; `wait` takes what it takes.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest `-t`, the longest `wait`.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The forms of the command line.
pub const USAGE: &str = "usage: rtp_cluster_client [-q] [-s SOCKET] [-t SECONDS] [COMMAND…]\n       \
                         rtp_cluster_client [-s SOCKET] top [SECONDS]\n       \
                         rtp_cluster_client -h | -V";

/// One flag, as the user sees it.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// One letter.
    pub short: &'static str,
    /// The long name, without its dashes.
    pub long: &'static str,
    /// What its value is called; empty for a flag without a value.
    pub value: &'static str,
    /// One line for `--help`.
    pub help: &'static str,
}

/// Every flag, in the order of `--help`.
pub const FLAGS: &[Flag] = &[
    Flag {
        short: "s",
        long: "socket",
        value: "SOCKET",
        help: "admin socket of the daemon: PATH or unix:PATH",
    },
    Flag {
        short: "t",
        long: "timeout",
        value: "SECONDS",
        help: "how long a reply may take (60; wait: any time)",
    },
    Flag {
        short: "q",
        long: "quiet",
        value: "",
        help: "leave out the OK that ends a good reply, for other programs",
    },
    Flag {
        short: "h",
        long: "help",
        value: "",
        help: "show this",
    },
    Flag {
        short: "V",
        long: "version",
        value: "",
        help: "show the version",
    },
];

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Talk to the daemon.
    Run(Options),
    /// Print this and leave.
    Show(String),
}

/// How to talk to the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Path of its admin socket.
    pub socket: PathBuf,
    /// How long a reply may take; `None` where `-t` does not say it.
    pub timeout: Option<Duration>,
    /// Whether the last `OK` is left out.
    pub quiet: bool,
    /// The words of the command, joined; `None` where there is none.
    pub command: Option<String>,
}

/// Reads the words after the program's name.
///
/// # Errors
/// One line that names the word and what would be right.
pub fn parse(words: impl Iterator<Item = OsString>) -> Result<Action, String> {
    let mut parser = getopts::Options::new();
    // `ls -v` is the daemon's business.
    parser.parsing_style(ParsingStyle::StopAtFirstFree);
    for flag in FLAGS {
        if flag.value.is_empty() {
            parser.optflag(flag.short, flag.long, flag.help);
        } else {
            parser.optopt(flag.short, flag.long, flag.help, flag.value);
        }
    }
    let found = parser.parse(words).map_err(|wrong| wrong.to_string())?;
    if found.opt_present("h") {
        return Ok(Action::Show(help()));
    }
    if found.opt_present("V") {
        return Ok(Action::Show(format!(
            "rtp_cluster_client {}\n",
            env!("CARGO_PKG_VERSION")
        )));
    }
    let socket = found.opt_str("s").unwrap_or_else(|| DEFAULT_SOCKET.to_owned());
    let path = socket.strip_prefix("unix:").unwrap_or(&socket);
    if path.is_empty() {
        return Err(format!("-s \"{socket}\": want PATH or unix:PATH"));
    }
    let command = found.free.join(" ");
    if command.contains(['\n', '\r']) {
        return Err(
            "the command has a line end in it: want one command, or several on standard input".to_owned(),
        );
    }
    let command = command.trim();
    if command.is_empty() && !found.free.is_empty() {
        return Err("the command is empty: want one, or none at all for a prompt".to_owned());
    }
    Ok(Action::Run(Options {
        socket: path.into(),
        timeout: found.opt_str("t").map(|text| seconds(&text)).transpose()?,
        quiet: found.opt_present("q"),
        command: (!command.is_empty()).then(|| command.to_owned()),
    }))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let time = text
        .parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let time = time.filter(|time| !time.is_zero() && *time <= TIMEOUT_MAX);
    time.ok_or_else(|| {
        format!(
            "-t \"{text}\": want a number above 0, at most {}",
            TIMEOUT_MAX.as_secs()
        )
    })
}

fn help() -> String {
    let mut text = format!("{USAGE}\n\n");
    for Flag {
        short,
        long,
        value,
        help,
    } in FLAGS
    {
        let _ = writeln!(text, "  -{short}, --{:<18} {help}", format!("{long} {value}"));
    }
    let _ = write!(
        text,
        "\nThe socket is {DEFAULT_SOCKET} where -s does not say otherwise. Without COMMAND there is a prompt on a\n\
         terminal; from a file or a pipe each line is one command. \"help\" lists the commands.\n\n\
         Exit status: 0 OK, 1 the daemon said ERROR, 2 no daemon or half a reply, 64 wrong usage.\n"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Action, String> {
        parse(words.iter().map(OsString::from))
    }

    fn options(words: &[&str]) -> Options {
        match parsed(words) {
            Ok(Action::Run(options)) => options,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    #[test]
    fn words_and_one_word_are_the_same_command() {
        assert_eq!(
            options(&["ls", "Supercluster#1"]),
            options(&["ls Supercluster#1"])
        );
        assert_eq!(
            options(&["ls", "Supercluster#1"]).command.as_deref(),
            Some("ls Supercluster#1")
        );
        assert_eq!(options(&[]).command, None);
    }

    #[test]
    fn flags_after_the_command_are_the_daemons() {
        let options = options(&["-t", "2.5", "wait", "C", "R", "gone", "-t", "9"]);
        assert_eq!(options.command.as_deref(), Some("wait C R gone -t 9"));
        assert_eq!(options.timeout, Some(Duration::from_millis(2500)));
    }

    #[test]
    fn the_socket_comes_with_or_without_its_kind() {
        assert_eq!(options(&["-s", "unix:/tmp/a"]).socket, PathBuf::from("/tmp/a"));
        assert_eq!(options(&["--socket", "/tmp/a"]).socket, PathBuf::from("/tmp/a"));
        assert_eq!(options(&["ls"]).socket, PathBuf::from(DEFAULT_SOCKET));
    }

    #[test]
    fn wrong_words_are_named() {
        for (words, part) in [
            (&["-x"][..], "'x'"),
            (&["-s"], "'s'"),
            (&["-s", "unix:"], "\"unix:\": want PATH"),
            (&["-t", "0"], "-t \"0\""),
            (&["-t", "soon"], "-t \"soon\""),
            (&["-t", "NaN"], "-t \"NaN\""),
            (&["ls\nreload"], "line end"),
            (&[""], "empty"),
        ] {
            let wrong = parsed(words).unwrap_err();
            assert!(wrong.contains(part), "{words:?}: {wrong}");
        }
    }

    #[test]
    fn help_names_every_flag() {
        let Ok(Action::Show(help)) = parsed(&["-h"]) else {
            panic!("no help")
        };
        for flag in FLAGS {
            assert!(
                help.contains(&format!("-{}, --{}", flag.short, flag.long)),
                "{help}"
            );
        }
        assert!(
            matches!(parsed(&["-V"]), Ok(Action::Show(text)) if text.starts_with("rtp_cluster_client 1."))
        );
    }
}
