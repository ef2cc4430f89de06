//! The command line, read by the table of flags. Pure: words in, values out; whether a file or a user exists is
//! found out later.

use core::fmt;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::flags::{
    DEFAULT_ADMIN_MODE, DEFAULT_CONFIG, DEFAULT_LOG_FILE, DEFAULT_MODE, DEFAULT_PID_FILE,
    DEFAULT_READONLY_MODE, DEFAULT_READONLY_SOCKET, DEFAULT_SOCKET, FLAGS, help,
};
use crate::config::fields::user_and_group;

/// A user, a group, or both, by name or number; resolved where it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// `USER` of `USER:GROUP`; absent in `:GROUP`.
    pub user: Option<String>,
    /// `GROUP` of `USER:GROUP`.
    pub group: Option<String>,
}

impl Owner {
    /// Takes `USER`, `USER:GROUP` or `:GROUP`, as an attribute of the configuration does.
    pub fn new(text: &str) -> Option<Self> {
        let (user, group) = user_and_group(text)?;
        Some(Self { user, group })
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.user.as_deref().unwrap_or_default())?;
        match &self.group {
            Some(group) => write!(f, ":{group}"),
            None => Ok(()),
        }
    }
}

/// A syslog facility: its number in a message's priority (RFC 3164, section 4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facility(pub u8);

impl Facility {
    /// The names of syslog.conf(5), at their numbers; 12 to 15 have none there.
    const NAMES: [&str; 24] = [
        "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
        "", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
    ];

    /// The facility of that name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        let named = |known: &&str| !known.is_empty() && known.eq_ignore_ascii_case(name);
        let number = Self::NAMES.iter().position(named)?;
        u8::try_from(number).ok().map(Self)
    }
}

/// Where a daemon logs. With `-f` it is standard error, whatever this says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// This file, created where absent.
    File(PathBuf),
    /// The syslog of this machine.
    Syslog(Facility),
}

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// An object of JSON a line.
    Json,
    /// `name=value` pairs.
    Logfmt,
}

impl LogFormat {
    /// The format of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            "logfmt" => Some(Self::Logfmt),
            _ => None,
        }
    }

    /// What the field of the message is called there.
    pub(super) const fn message(self) -> &'static str {
        match self {
            Self::Text | Self::Json => "message",
            Self::Logfmt => "msg",
        }
    }
}

/// How the daemon is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Do not daemonize; log to standard error.
    pub foreground: bool,
    /// The configuration file.
    pub config: PathBuf,
    /// Where a daemon logs.
    pub log_file: LogTarget,
    /// Locked while the daemon lives.
    pub pid_file: PathBuf,
    /// The admin socket.
    pub admin_socket: PathBuf,
    /// The admin socket on which only commands that read are taken.
    pub readonly_socket: Option<PathBuf>,
    /// Owner of the control sockets, where the configuration names none.
    pub socket_owner: Option<Owner>,
    /// Mode of the control sockets, where the configuration names none.
    pub socket_mode: u32,
    /// Owner of the admin sockets.
    pub admin_owner: Option<Owner>,
    /// Mode of the admin sockets.
    pub admin_mode: u32,
    /// Mode of the one that only reads.
    pub readonly_mode: u32,
    /// Whom to become when all is open; its `user` is never absent.
    pub user: Option<Owner>,
    /// Where the session map is kept over a restart.
    pub state_dir: Option<PathBuf>,
    /// Take over from the running daemon.
    pub takeover: bool,
    /// How a line of the log is written.
    pub log_format: LogFormat,
    /// How many `-v` there were: 0 is info, 1 debug, more trace.
    pub verbosity: usize,
}

impl Options {
    /// The same with every path made absolute from `here`: a daemon leaves the directory that it was started in.
    ///
    /// # Errors
    /// A path that is relative, where there is no directory `here` any more.
    pub fn absolute(mut self, here: Option<&Path>) -> Result<Self, PathBuf> {
        let log = match &mut self.log_file {
            LogTarget::File(path) => Some(path),
            LogTarget::Syslog(_) => None,
        };
        let paths = [&mut self.config, &mut self.pid_file, &mut self.admin_socket];
        let optional = [&mut self.readonly_socket, &mut self.state_dir];
        let optional = optional.into_iter().flatten().chain(log);
        for path in paths
            .into_iter()
            .chain(optional)
            .filter(|path| path.is_relative())
        {
            *path = here.ok_or_else(|| path.clone())?.join(&*path);
        }
        Ok(self)
    }

    /// The files that the daemon writes beside its configuration, sockets apart.
    pub fn own_files(&self) -> impl Iterator<Item = &Path> {
        let log = match &self.log_file {
            LogTarget::File(path) if !self.foreground => Some(path),
            LogTarget::File(_) | LogTarget::Syslog(_) => None,
        };
        log.into_iter().chain([&self.pid_file]).map(PathBuf::as_path)
    }
}

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Serve.
    Run(Options),
    /// Check the configuration and leave.
    Check(Options),
    /// Print this text, which is that of `--help`.
    Help(String),
    /// Print this text, which is that of `--version`.
    Version(String),
}

/// A command line that makes no sense: exit status 64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads the words after the program's name.
///
/// # Errors
/// With the flag, its value and what would be right.
pub fn parse(args: &[OsString]) -> Result<Asked, UsageError> {
    let found = Found(
        grammar()
            .parse(args)
            .map_err(|fault| UsageError(fault.to_string()))?,
    );
    if found.has("help") {
        return Ok(Asked::Help(help()));
    }
    if found.has("version") {
        return Ok(Asked::Version(
            concat!("rtp_cluster ", env!("CARGO_PKG_VERSION"), "\n").to_owned(),
        ));
    }
    if let Some(word) = found.0.free.first() {
        return Err(UsageError(format!(
            "\"{word}\": every argument belongs to a flag"
        )));
    }
    let user = found.owner("user")?;
    if user.as_ref().is_some_and(|owner| owner.user.is_none()) {
        return Err(found.wrong("user", "USER or USER:GROUP"));
    }
    let admin_mode = found.mode("admin-mode", DEFAULT_ADMIN_MODE)?;
    let options = Options {
        foreground: found.has("foreground"),
        config: found.path("config", DEFAULT_CONFIG)?,
        log_file: found.log_target()?,
        pid_file: found.path("pid-file", DEFAULT_PID_FILE)?,
        admin_socket: found.socket("socket")?.unwrap_or_else(|| DEFAULT_SOCKET.into()),
        readonly_socket: found
            .socket("readonly-socket")?
            .or_else(|| path(DEFAULT_READONLY_SOCKET)),
        socket_owner: found.owner("socket-owner")?,
        socket_mode: found.mode("socket-mode", DEFAULT_MODE)?,
        admin_owner: found.owner("admin-owner")?,
        admin_mode,
        readonly_mode: found
            .optional("readonly-mode", MODE, mode)?
            .or_else(|| mode(DEFAULT_READONLY_MODE))
            .unwrap_or(admin_mode),
        user,
        state_dir: found.optional("state-dir", "a directory", path)?,
        takeover: found.has("takeover"),
        log_format: found
            .optional("log-format", "text, json or logfmt", LogFormat::from_name)?
            .unwrap_or(LogFormat::Text),
        verbosity: found.0.opt_count("verbose"),
    };
    if options.readonly_socket.as_ref() == Some(&options.admin_socket) {
        return Err(found.wrong("readonly-socket", "another path than that of --socket"));
    }
    if let LogTarget::File(log) = &options.log_file {
        // The log is appended to whatever is there.
        for (other, long) in [(&options.config, "config"), (&options.pid_file, "pid-file")] {
            if log == other {
                return Err(found.wrong("log-file", &format!("another file than that of --{long}")));
            }
        }
    }
    Ok(if found.has("check") {
        Asked::Check(options)
    } else {
        Asked::Run(options)
    })
}

fn grammar() -> getopts::Options {
    let mut grammar = getopts::Options::new();
    for flag in FLAGS {
        if flag.value.is_empty() {
            grammar.optflagmulti(flag.short, flag.long, flag.help);
        } else {
            grammar.optopt(flag.short, flag.long, flag.help, flag.value);
        }
    }
    grammar
}

/// What a mode is to be.
const MODE: &str = "an octal mode from 0 to 0777, as 0660";

/// The flags that were given, read by their long names.
struct Found(getopts::Matches);

impl Found {
    fn has(&self, long: &str) -> bool {
        self.0.opt_present(long)
    }

    /// The value of a flag made by `make`, `None` where the flag is absent.
    fn optional<T>(
        &self,
        long: &str,
        want: &str,
        make: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, UsageError> {
        match self.0.opt_str(long) {
            None => Ok(None),
            Some(value) => make(&value).map(Some).ok_or_else(|| self.wrong(long, want)),
        }
    }

    fn path(&self, long: &str, default: &str) -> Result<PathBuf, UsageError> {
        Ok(self
            .optional(long, "a path", path)?
            .unwrap_or_else(|| default.into()))
    }

    /// The path of a socket; the client's form `unix:PATH` is taken as well.
    fn socket(&self, long: &str) -> Result<Option<PathBuf>, UsageError> {
        self.optional(long, "a path", |value| {
            path(value.strip_prefix("unix:").unwrap_or(value))
        })
    }

    fn owner(&self, long: &str) -> Result<Option<Owner>, UsageError> {
        self.optional(long, "USER, USER:GROUP or :GROUP", Owner::new)
    }

    fn mode(&self, long: &str, default: &str) -> Result<u32, UsageError> {
        let value = self.0.opt_str(long).unwrap_or_else(|| default.to_owned());
        mode(&value).ok_or_else(|| self.wrong(long, MODE))
    }

    fn log_target(&self) -> Result<LogTarget, UsageError> {
        let target = |value: &str| match value.strip_prefix("syslog:") {
            Some(facility) => Facility::from_name(facility).map(LogTarget::Syslog),
            None => path(value).map(LogTarget::File),
        };
        let want = "a path, or syslog: and a facility such as daemon or local0";
        Ok(self
            .optional("log-file", want, target)?
            .unwrap_or_else(|| LogTarget::File(DEFAULT_LOG_FILE.into())))
    }

    fn wrong(&self, long: &str, want: &str) -> UsageError {
        let value = self.0.opt_str(long).unwrap_or_default();
        UsageError(format!("--{long} \"{value}\": want {want}"))
    }
}

/// A path that names something.
fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty() && !text.contains('\0')).then(|| text.into())
}

/// Permission bits in octal.
fn mode(text: &str) -> Option<u32> {
    let octal =
        !text.is_empty() && text.len() <= 5 && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|&mode| octal && mode <= 0o777)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Result<Asked, UsageError> {
        let args: Vec<OsString> = line
            .split(' ')
            .filter(|word| !word.is_empty())
            .map(OsString::from)
            .collect();
        parse(&args)
    }

    fn run(line: &str) -> Options {
        match asked(line) {
            Ok(Asked::Run(options)) => options,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn refused(line: &str) -> String {
        match asked(line) {
            Err(fault) => fault.to_string(),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn without_flags_everything_has_its_default() {
        let options = run("");
        assert!(!options.foreground && !options.takeover);
        assert_eq!(options.config, Path::new(DEFAULT_CONFIG));
        assert_eq!(options.log_file, LogTarget::File(DEFAULT_LOG_FILE.into()));
        assert_eq!(options.pid_file, Path::new(DEFAULT_PID_FILE));
        assert_eq!(options.admin_socket, Path::new(DEFAULT_SOCKET));
        assert_eq!((options.socket_mode, options.admin_mode), (0o660, 0o660));
        assert_eq!(options.readonly_mode, 0o660);
        assert_eq!(
            (options.user, options.socket_owner, options.readonly_socket),
            (None, None, None)
        );
        assert_eq!(options.verbosity, 0);
    }

    #[test]
    fn the_socket_that_only_reads_may_have_a_mode_of_its_own() {
        let modes = |line| {
            let options = run(line);
            (options.admin_mode, options.readonly_mode)
        };
        assert_eq!(modes("--admin-mode 0600"), (0o600, 0o600));
        assert_eq!(modes("--admin-mode 0600 --readonly-mode 0660"), (0o600, 0o660));
        assert!(refused("--readonly-mode rw").contains("octal"));
    }

    #[test]
    fn short_and_long_forms_say_the_same() {
        let short = run("-f -c a -L b -P c -s d -r e -o f:g -m 0600 -u h -S i -T -vv");
        let long = run(
            "--foreground --config=a --log-file b --pid-file=c --socket d --readonly-socket e --socket-owner f:g \
             --socket-mode 600 --user h --state-dir i --takeover --verbose --verbose",
        );
        assert_eq!(short, long);
        assert_eq!(short.socket_owner, Owner::new("f:g"));
        assert_eq!((short.socket_mode, short.verbosity), (0o600, 2));
    }

    #[test]
    fn a_flag_that_is_absent_from_the_table_is_refused() {
        assert!(refused("-x").contains('x'));
        assert!(refused("--fore-ground").contains("fore-ground"));
        assert!(refused("-c").contains('c'));
        assert!(refused("-c a -c b").contains('c'));
        assert!(refused("file.xml").contains("file.xml"));
    }

    #[test]
    fn a_bad_value_is_named_with_what_would_be_right() {
        for bad in [
            "-m 0888",
            "-m 01777",
            "-m 7777",
            "-m +7",
            "--admin-mode rw",
            "-m 000600",
        ] {
            assert!(refused(bad).contains("octal"), "{bad}");
        }
        for bad in ["-o :", "--admin-owner a:b:c"] {
            assert!(refused(bad).contains("USER"), "{bad}");
        }
        assert_eq!(refused("-u :staff"), "--user \":staff\": want USER or USER:GROUP");
        assert!(refused("-L syslog:mars").contains("facility"));
        assert!(refused("-s unix:").contains("a path"));
        assert!(refused("-s a -r unix:a").contains("another path"));
        assert_eq!(
            refused("-c a -L a"),
            "--log-file \"a\": want another file than that of --config"
        );
        assert!(refused("-P a -L a").contains("--pid-file"));
    }

    #[test]
    fn owners_come_in_three_forms() {
        let owner = |text| Owner::new(text).map(|owner| (owner.user, owner.group));
        assert_eq!(owner("sip"), Some((Some("sip".into()), None)));
        assert_eq!(
            owner("sip:media"),
            Some((Some("sip".into()), Some("media".into())))
        );
        assert_eq!(owner(":media"), Some((None, Some("media".into()))));
        assert_eq!(owner("sip:"), owner("sip"));
        assert_eq!(owner(""), None);
        assert_eq!(Owner::new("sip:media").unwrap().to_string(), "sip:media");
    }

    #[test]
    fn syslog_facilities_have_their_numbers() {
        assert_eq!(run("-L syslog:daemon").log_file, LogTarget::Syslog(Facility(3)));
        assert_eq!(run("-L syslog:LOCAL7").log_file, LogTarget::Syslog(Facility(23)));
        assert_eq!(Facility::from_name(""), None);
    }

    #[test]
    fn paths_become_absolute_once() {
        let options = run("-c a.xml -P /run/p -L log -r ro")
            .absolute(Some(Path::new("/home/me")))
            .unwrap();
        assert_eq!(options.config, Path::new("/home/me/a.xml"));
        assert_eq!(options.pid_file, Path::new("/run/p"));
        assert_eq!(options.log_file, LogTarget::File("/home/me/log".into()));
        assert_eq!(options.readonly_socket.as_deref(), Some(Path::new("/home/me/ro")));
        assert_eq!(run("-c /c -P /p -s /s -L log").absolute(None), Err("log".into()));
        let syslog = run("-c /c -P /p -s /s -L syslog:user");
        assert_eq!(syslog.clone().absolute(None), Ok(syslog));
    }

    #[test]
    fn help_names_every_flag_and_wins_over_the_rest() {
        let Ok(Asked::Help(text)) = asked("-f -h stray") else {
            panic!("no help")
        };
        for flag in FLAGS {
            assert!(text.contains(&format!("--{}", flag.long)), "{}", flag.long);
            assert!(flag.short.is_empty() || text.contains(&format!("-{}, ", flag.short)));
        }
        assert!(text.lines().all(|line| line.len() <= 120), "{text}");
        assert!(matches!(asked("-V"), Ok(Asked::Version(text)) if text.starts_with("rtp_cluster ")));
        assert!(matches!(asked("-d -c x"), Ok(Asked::Check(_))));
    }
}
