//! The flags of the daemon, each defined once: this table feeds the parser, `--help` and the test of the man page.
//! Pure.

use core::fmt::Write;

/// Configuration where `-c` is absent; fixed when the program is built, there is no search.
pub const DEFAULT_CONFIG: &str = built(
    "/usr/local/etc/rtp_cluster.xml",
    option_env!("RTP_CLUSTER_CONFIG"),
);
/// Admin socket where `-s` is absent; the client is built with the same one.
pub const DEFAULT_SOCKET: &str = built("/var/run/rtp_cluster.sock", option_env!("RTP_CLUSTER_SOCKET"));
/// Pid file where `-P` is absent.
pub const DEFAULT_PID_FILE: &str = built("/var/run/rtp_cluster.pid", option_env!("RTP_CLUSTER_PID_FILE"));
/// Log file where `-L` is absent.
pub const DEFAULT_LOG_FILE: &str = built("/var/log/rtp_cluster.log", option_env!("RTP_CLUSTER_LOG_FILE"));
/// Mode of control sockets where `-m` is absent.
pub const DEFAULT_MODE: &str = "0660";
/// Mode of admin sockets where `--admin-mode` is absent. Packages make it 0600: there the SIP server's user is a
/// member of our group, which lets it call, not administer.
pub const DEFAULT_ADMIN_MODE: &str = built("0660", option_env!("RTP_CLUSTER_ADMIN_MODE"));
/// Admin socket that only reads, where `-r` is absent; empty for none. Packages have one, for `rtp_cluster_status`.
pub const DEFAULT_READONLY_SOCKET: &str = built("", option_env!("RTP_CLUSTER_READONLY_SOCKET"));
/// Its mode where `--readonly-mode` is absent; empty for that of the other admin socket.
pub const DEFAULT_READONLY_MODE: &str = built("", option_env!("RTP_CLUSTER_READONLY_MODE"));

/// What the packager chose, else the default of a build from source.
const fn built(default: &'static str, packaged: Option<&'static str>) -> &'static str {
    match packaged {
        Some(path) => path,
        None => default,
    }
}

/// One flag, as the user sees it.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// One letter, or empty where there is none.
    pub short: &'static str,
    /// The long name, without its dashes.
    pub long: &'static str,
    /// What its value is called in usage texts; empty for a flag without a value.
    pub value: &'static str,
    /// Shown as its default; empty where there is none.
    pub default: &'static str,
    /// One line for `--help`.
    pub help: &'static str,
}

const fn flag(short: &'static str, long: &'static str, help: &'static str) -> Flag {
    Flag {
        short,
        long,
        value: "",
        default: "",
        help,
    }
}

const fn valued(
    short: &'static str,
    long: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
) -> Flag {
    Flag {
        short,
        long,
        value,
        default,
        help,
    }
}

/// Every flag, in the order of `--help`.
pub const FLAGS: &[Flag] = &[
    flag("f", "foreground", "stay in the foreground, log to standard error"),
    flag(
        "d",
        "check",
        "check the configuration, open nothing, exit 0 or 78",
    ),
    valued("c", "config", "FILE", DEFAULT_CONFIG, "configuration"),
    valued(
        "L",
        "log-file",
        "FILE",
        DEFAULT_LOG_FILE,
        "log of a daemon, or syslog:FACILITY",
    ),
    valued(
        "P",
        "pid-file",
        "FILE",
        DEFAULT_PID_FILE,
        "pid file, locked while the daemon lives",
    ),
    valued("s", "socket", "SOCK", DEFAULT_SOCKET, "admin socket"),
    valued(
        "r",
        "readonly-socket",
        "SOCK",
        DEFAULT_READONLY_SOCKET,
        "a second admin socket, for commands that only read",
    ),
    valued(
        "o",
        "socket-owner",
        "USER[:GROUP]",
        "",
        "owner of the control sockets",
    ),
    valued(
        "m",
        "socket-mode",
        "MODE",
        DEFAULT_MODE,
        "mode of the control sockets",
    ),
    valued(
        "",
        "admin-owner",
        "USER[:GROUP]",
        "",
        "owner of the admin sockets, else our own user",
    ),
    valued(
        "",
        "admin-mode",
        "MODE",
        DEFAULT_ADMIN_MODE,
        "mode of the admin sockets",
    ),
    valued(
        "",
        "readonly-mode",
        "MODE",
        DEFAULT_READONLY_MODE,
        "mode of the second one, else as the first",
    ),
    valued(
        "u",
        "user",
        "USER[:GROUP]",
        "",
        "drop privileges to this user when all is open",
    ),
    valued(
        "S",
        "state-dir",
        "DIR",
        "",
        "keep here over a restart which member has which call",
    ),
    flag(
        "T",
        "takeover",
        "take sockets and pid file over from the running daemon",
    ),
    valued(
        "",
        "log-format",
        "FORMAT",
        "text",
        "lines of the log as text, json or logfmt",
    ),
    flag(
        "v",
        "verbose",
        "more log: -v debug, -vv trace; RUST_LOG wins where it is set",
    ),
    flag("h", "help", "print this text"),
    flag("V", "version", "print the version"),
];

/// The text of `--help`.
pub(super) fn help() -> String {
    /// Where the explanations begin.
    const COLUMN: usize = 34;
    let mut text = String::from(
        "Usage: rtp_cluster [FLAG]...\n\
         Dispatches the commands of SIP servers to a cluster of RTPproxy media servers.\n\n",
    );
    for flag in FLAGS {
        let mut line = match flag.short {
            "" => String::from("      "),
            short => format!("  -{short}, "),
        };
        line.push_str("--");
        line.push_str(flag.long);
        if !flag.value.is_empty() {
            line.push(' ');
            line.push_str(flag.value);
        }
        // Writing to a string cannot fail.
        let _ = write!(text, "{line:COLUMN$} {}", flag.help);
        if !flag.default.is_empty() {
            let _ = write!(text, "\n{:COLUMN$} (default {})", "", flag.default);
        }
        text.push('\n');
    }
    text.push_str(
        "\nExit status: 0 clean, 64 wrong usage, 75 another instance lives, 78 configuration refused, 1 anything else.\n\
         SIGTERM stops, SIGHUP reloads the configuration, SIGUSR1 reopens the log, SIGUSR2 logs a status dump.\n",
    );
    text
}
