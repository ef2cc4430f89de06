//! The command line of the status program: each flag is defined once, in a table that feeds the parser, `--help` and
//! the test of the man page. Pure.

use core::fmt::Write;
use core::net::SocketAddr;
use std::ffi::OsString;
use std::path::PathBuf;

use crate::daemon::flags::DEFAULT_SOCKET;
pub use crate::daemon::flags::Flag;

/// Where `-l` is absent: this machine alone, since the page tells addresses and asks for no password.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:9433";
/// The daemon's socket where `-s` is absent: in packages the one that only reads.
pub const DEFAULT_READ_SOCKET: &str = match option_env!("RTP_CLUSTER_READONLY_SOCKET") {
    Some(packaged) => packaged,
    None => DEFAULT_SOCKET,
};
/// Mode of a UNIX socket that we listen on, where `-m` is absent.
pub const DEFAULT_MODE: &str = "0660";

/// Every flag, in the order of `--help`.
pub const FLAGS: &[Flag] = &[
    Flag {
        short: "l",
        long: "listen",
        value: "ADDRESS",
        default: DEFAULT_LISTEN,
        help: "where to serve HTTP: IP:PORT, or a path",
    },
    Flag {
        short: "m",
        long: "mode",
        value: "MODE",
        default: DEFAULT_MODE,
        help: "mode of a socket that is a path",
    },
    Flag {
        short: "s",
        long: "socket",
        value: "SOCK",
        default: DEFAULT_READ_SOCKET,
        help: "admin socket of the daemon, best the one that only reads",
    },
    Flag {
        short: "h",
        long: "help",
        value: "",
        default: "",
        help: "print this text",
    },
    Flag {
        short: "V",
        long: "version",
        value: "",
        default: "",
        help: "print the version",
    },
];

/// Where HTTP is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// TCP.
    Net(SocketAddr),
    /// A UNIX socket, as for a web server in front of us.
    Path(PathBuf),
}

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Serve.
    Run(Options),
    /// Print this and leave.
    Show(String),
}

/// How to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where.
    pub listen: Listen,
    /// Permission bits of a UNIX socket that we listen on.
    pub mode: u32,
    /// The daemon's admin socket.
    pub socket: PathBuf,
}

/// Reads the words after the program's name.
///
/// # Errors
/// One line that names the flag, its value and what would be right.
pub fn parse(words: &[OsString]) -> Result<Asked, String> {
    let mut grammar = getopts::Options::new();
    for flag in FLAGS {
        if flag.value.is_empty() {
            grammar.optflag(flag.short, flag.long, flag.help);
        } else {
            grammar.optopt(flag.short, flag.long, flag.help, flag.value);
        }
    }
    let found = grammar.parse(words).map_err(|wrong| wrong.to_string())?;
    if found.opt_present("help") {
        return Ok(Asked::Show(help()));
    }
    if found.opt_present("version") {
        return Ok(Asked::Show(format!(
            "rtp_cluster_status {}\n",
            env!("CARGO_PKG_VERSION")
        )));
    }
    if let Some(stray) = found.free.first() {
        return Err(format!("\"{stray}\": want flags only"));
    }
    let value = |long: &str, default: &str| found.opt_str(long).unwrap_or_else(|| default.to_owned());
    let wrong = |long: &str, value: &str, want: &str| format!("--{long} \"{value}\": want {want}");
    let address = value("listen", DEFAULT_LISTEN);
    let listen = listen(&address).ok_or_else(|| {
        wrong(
            "listen",
            &address,
            "an address and a port, as 127.0.0.1:9433 or [::1]:9433, or a path with a / in it",
        )
    })?;
    let bits = value("mode", DEFAULT_MODE);
    let mode = u32::from_str_radix(&bits, 8)
        .ok()
        .filter(|&mode| mode <= 0o777 && bits.len() <= 4 && !bits.starts_with('+'))
        .ok_or_else(|| wrong("mode", &bits, "an octal mode from 0 to 0777, as 0660"))?;
    let path = value("socket", DEFAULT_READ_SOCKET);
    let socket = path.strip_prefix("unix:").unwrap_or(&path);
    if socket.is_empty() {
        return Err(wrong("socket", &path, "a path"));
    }
    Ok(Asked::Run(Options {
        listen,
        mode,
        socket: socket.into(),
    }))
}

fn listen(text: &str) -> Option<Listen> {
    match text.strip_prefix("unix:") {
        Some("") => None,
        Some(path) => Some(Listen::Path(path.into())),
        None if text.contains('/') => Some(Listen::Path(text.into())),
        // No host name: what a name is looked up to may be more than was meant.
        None => text.parse().ok().map(Listen::Net),
    }
}

/// The text of `--help`.
fn help() -> String {
    /// Where the explanations begin.
    const COLUMN: usize = 28;
    let mut text = String::from(
        "Usage: rtp_cluster_status [FLAG]...\n\
         Serves the status page, metrics and JSON of a running rtp_cluster over HTTP. Reads, and changes nothing.\n\n",
    );
    for flag in FLAGS {
        let line = format!("  -{}, --{} {}", flag.short, flag.long, flag.value);
        // Writing to a string cannot fail.
        let _ = write!(text, "{line:COLUMN$} {}", flag.help);
        if !flag.default.is_empty() {
            let _ = write!(text, "\n{:COLUMN$} (default {})", "", flag.default);
        }
        text.push('\n');
    }
    text.push_str(
        "\nExit status: 0 after SIGTERM, 64 wrong usage, 75 another instance lives, 1 anything else.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Result<Asked, String> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        parse(&words)
    }

    fn run(line: &str) -> Options {
        match asked(line) {
            Ok(Asked::Run(options)) => options,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn without_flags_it_serves_this_machine_alone() {
        let options = run("");
        assert_eq!(options.listen, Listen::Net(DEFAULT_LISTEN.parse().unwrap()));
        assert_eq!(
            (options.mode, options.socket),
            (0o660, DEFAULT_READ_SOCKET.into())
        );
    }

    #[test]
    fn short_and_long_forms_say_the_same() {
        let short = run("-l /run/x/http -m 0600 -s unix:/run/a");
        assert_eq!(short, run("--listen=unix:/run/x/http --mode 600 --socket /run/a"));
        assert_eq!(short.listen, Listen::Path("/run/x/http".into()));
        assert_eq!(
            run("-l [::1]:80").listen,
            Listen::Net("[::1]:80".parse().unwrap())
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        for (line, part) in [
            ("-l localhost", "--listen \"localhost\": want an address"),
            ("-l unix:", "--listen"),
            ("-l :9433", "--listen"),
            ("-m 0888", "octal"),
            ("-m +7", "octal"),
            ("-s unix:", "--socket"),
            ("-x", "x"),
            ("stray", "stray"),
        ] {
            let wrong = asked(line).unwrap_err();
            assert!(wrong.contains(part), "{line}: {wrong}");
        }
    }

    #[test]
    fn help_names_every_flag_and_wins_over_the_rest() {
        let Ok(Asked::Show(text)) = asked("-h -V") else {
            panic!("no help")
        };
        for flag in FLAGS {
            assert!(
                text.contains(&format!("-{}, --{}", flag.short, flag.long)),
                "{text}"
            );
        }
        assert!(text.lines().all(|line| line.len() <= 120), "{text}");
        assert!(matches!(asked("-V"), Ok(Asked::Show(text)) if text.starts_with("rtp_cluster_status ")));
    }
}
