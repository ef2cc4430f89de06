//! A line to a command, or to what is wrong with it. Pure. Commands, actions, options and keys are taken in any
//! case; names, paths and call-ids as they are typed.

use core::time::Duration;
use std::path::PathBuf;

use super::command::{
    Command, ListForm, PAIRS_MAX, SESSIONS_LISTED, SESSIONS_LISTED_MAX, StatsForm, Trace, TracedCalls, Until,
    WAIT_MAX, Wait,
};
use super::commands::{self, Entry, Kind};
use super::reply::Reply;
use super::select::{Selection, SortKey};
use crate::config::pairs;

/// Reads one line. `None` for a blank one, which gets no reply.
///
/// # Errors
/// The reply that says which word is wrong and which form is right.
pub fn parse(line: &str) -> Result<Option<(&'static Entry, Command)>, Reply> {
    let mut words = Words(line);
    let Some(first) = words.next() else {
        return Ok(None);
    };
    let forms: Vec<&'static Entry> = commands::forms(first).collect();
    let Some(&entry) = forms.first() else {
        let known = commands::names().collect::<Vec<_>>().join(", ");
        let hint = format!("{}: no such command; there are {known}", shown(first));
        return Err(Reply::error("unknown command").with(hint));
    };
    if entry.actions.is_empty() {
        return Ok(Some((entry, arguments(entry, String::new(), words)?)));
    }
    // `modify CLUSTER ACTION`, but `cluster ACTION`.
    let usages = || {
        forms
            .iter()
            .map(|entry| entry.usage)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let missing = |what: &str| {
        let actions: Vec<_> = forms
            .iter()
            .filter_map(|entry| entry.actions.first().copied())
            .collect();
        let why = format!(
            "{}: {what} is missing: want one of {}",
            first.to_ascii_lowercase(),
            actions.join(", ")
        );
        Reply::error(why).with(usages())
    };
    let cluster = match entry.kind {
        Kind::ClusterAdd => "",
        _ => words
            .next()
            .ok_or_else(|| missing("CLUSTER and what to do with it"))?,
    };
    let action = words.next().ok_or_else(|| missing("what to do"))?;
    match forms
        .iter()
        .find(|entry| commands::is_one_of(action, entry.actions))
    {
        Some(entry) => Ok(Some((entry, arguments(entry, cluster.to_owned(), words)?))),
        None => Err(Reply::error(format!("unsupported action: \"{}\"", shown(action))).with(usages())),
    }
}

/// Reads what follows the command, the cluster and the action.
fn arguments(entry: &'static Entry, cluster: String, words: Words<'_>) -> Result<Command, Reply> {
    let mut args = Arguments { entry, words };
    let command = match entry.kind {
        Kind::Ls => args.ls()?,
        Kind::Add => {
            let member = pairs::member_from_pairs(&args.pairs()?).map_err(Reply::error)?;
            Command::Add { cluster, member }
        }
        Kind::Delete => Command::Delete {
            cluster,
            name: args.word("NAME")?,
            now: args.keyword("now"),
        },
        Kind::Suspend => Command::Suspend {
            cluster,
            name: args.word("NAME")?,
        },
        Kind::Resume => Command::Resume {
            cluster,
            name: args.word("NAME")?,
        },
        Kind::Set => {
            let name = args.word("NAME")?;
            let settings = args
                .pairs()?
                .into_iter()
                .map(|(key, value)| pairs::setting_from_pair(key, value));
            let settings = settings.collect::<Result<_, _>>().map_err(Reply::error)?;
            Command::Set {
                cluster,
                name,
                settings,
            }
        }
        Kind::ClusterAdd => {
            let cluster = pairs::cluster_from_pairs(&args.pairs()?).map_err(Reply::error)?;
            Command::ClusterAdd(Box::new(cluster))
        }
        Kind::ClusterDelete => Command::ClusterDelete {
            name: args.word("CLUSTER")?,
            now: args.keyword("now"),
        },
        Kind::Sessions => args.sessions()?,
        Kind::Locate => {
            let json = args.option(&["--json"])?.is_some();
            Command::Locate {
                cluster: args.word("CLUSTER")?,
                call_id: args.word("CALL-ID")?,
                json,
            }
        }
        Kind::Reload => Command::Reload,
        Kind::Check => Command::Check(args.path()?.ok_or_else(|| args.missing("FILE"))?),
        Kind::Diff => Command::Diff {
            json: args.option(&["--json"])?.is_some(),
        },
        Kind::Save => {
            let force = args.option(&["--force"])?.is_some();
            Command::Save {
                file: args.path()?,
                force,
            }
        }
        Kind::Wait => Command::Wait(args.wait()?),
        Kind::Stats => {
            let form = match args.option(&["--json", "--prometheus"])? {
                None => StatsForm::Plain,
                Some("--json") => StatsForm::Json,
                Some(_) => StatsForm::Prometheus,
            };
            Command::Stats {
                cluster: args.words.next().map(str::to_owned),
                form,
            }
        }
        Kind::Watch => Command::Watch {
            json: args.option(&["--json"])?.is_some(),
        },
        Kind::Trace => args.trace()?,
        Kind::Version => Command::Version,
        Kind::Help => args.help()?,
        Kind::Quit => Command::Quit,
    };
    args.end()?;
    Ok(command)
}

/// The place of `word` among those that are known, in any case.
fn one_of(what: &str, word: &str, known: &[&str]) -> Result<usize, Reply> {
    let place = known.iter().position(|known| known.eq_ignore_ascii_case(word));
    place.ok_or_else(|| {
        let (last, first) = known.split_last().unwrap_or((&"", &[]));
        let want = format!("want {} or {last}", first.join(", "));
        Reply::error(format!("{what} \"{}\": {want}", shown(word)))
    })
}

/// The words of a line that are not taken yet.
#[derive(Clone)]
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start();
        let (word, rest) = text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()));
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }

    fn peek(&self) -> Option<&'a str> {
        self.clone().next()
    }

    /// All that is left, white space and all.
    fn rest(&mut self) -> &'a str {
        core::mem::take(&mut self.0).trim()
    }
}

/// The arguments of one form, with its row for messages.
struct Arguments<'a> {
    entry: &'static Entry,
    words: Words<'a>,
}

impl<'a> Arguments<'a> {
    /// The form is wrong: shows the right one.
    fn wrong(&self, why: &str) -> Reply {
        Reply::error(format!(
            "{}: {why}: want {}",
            self.entry.title(),
            self.entry.usage
        ))
    }

    fn missing(&self, what: &str) -> Reply {
        self.wrong(&format!("{what} is missing"))
    }

    fn unexpected(&self, word: &str) -> Reply {
        self.wrong(&format!("unexpected \"{}\"", shown(word)))
    }

    fn word(&mut self, what: &str) -> Result<String, Reply> {
        self.words
            .next()
            .map(str::to_owned)
            .ok_or_else(|| self.missing(what))
    }

    /// Takes the next word if it is `word`.
    fn keyword(&mut self, word: &str) -> bool {
        let found = self
            .words
            .peek()
            .is_some_and(|next| next.eq_ignore_ascii_case(word));
        if found {
            self.words.next();
        }
        found
    }

    /// Takes the options that come first: at most one of `known`, as spelled there. `--` ends them, for a name that
    /// starts with a dash.
    fn option(&mut self, known: &[&'static str]) -> Result<Option<&'static str>, Reply> {
        let mut found = None;
        while let Some(word) = self.words.peek().filter(|word| word.starts_with('-')) {
            self.words.next();
            if word == "--" {
                break;
            }
            match known.iter().find(|name| name.eq_ignore_ascii_case(word)) {
                Some(&option) if found.is_none_or(|earlier| earlier == option) => found = Some(option),
                Some(option) => {
                    let earlier = found.unwrap_or_default();
                    return Err(self.wrong(&format!("{option} and {earlier} exclude each other")));
                }
                None => return Err(self.wrong(&format!("unknown option \"{}\"", shown(word)))),
            }
        }
        Ok(found)
    }

    /// The rest of the line as `key=value` pairs, at least one, each key once. Blanks around each are not part of it.
    fn pairs(&mut self) -> Result<Vec<(&'a str, &'a str)>, Reply> {
        let rest = self.words.rest();
        if rest.is_empty() {
            return Err(self.missing("KEY=VALUE"));
        }
        let count = rest.split(',').count();
        if count > PAIRS_MAX {
            return Err(Reply::error(format!(
                "{}: {count} pairs: want at most {PAIRS_MAX}",
                self.entry.title()
            )));
        }
        let mut pairs: Vec<(&str, &str)> = Vec::with_capacity(count);
        for pair in rest.split(',') {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(Reply::error(format!(
                    "{}: \"{}\": want KEY=VALUE",
                    self.entry.title(),
                    shown(pair)
                )));
            };
            let (key, value) = (key.trim(), value.trim());
            if pairs.iter().any(|(earlier, _)| earlier.eq_ignore_ascii_case(key)) {
                return Err(Reply::error(format!(
                    "{} \"{}\": want each key once",
                    shown(key),
                    shown(value)
                )));
            }
            pairs.push((key, value));
        }
        Ok(pairs)
    }

    /// The rest of the line as a path: the working directory of the daemon is not that of who asks.
    fn path(&mut self) -> Result<Option<PathBuf>, Reply> {
        let rest = self.words.rest();
        if !rest.is_empty() && !rest.starts_with('/') {
            return Err(Reply::error(format!(
                "\"{}\": want a path that starts with /",
                shown(rest)
            )));
        }
        Ok((!rest.is_empty()).then(|| PathBuf::from(rest)))
    }

    fn ls(&mut self) -> Result<Command, Reply> {
        let form = match self.option(&["-v", "--verbose", "--json"])? {
            None => ListForm::Plain,
            Some("--json") => ListForm::Json,
            Some(_) => ListForm::Verbose,
        };
        let mut cluster = None;
        let mut selection = Selection::default();
        while let Some(word) = self.words.next() {
            // A name has no `=`, so the two are never confused.
            match word.split_once('=') {
                Some((key, value)) if key.eq_ignore_ascii_case("state") && selection.online.is_none() => {
                    let is_online = one_of("ls: state", value, &["online", "offline"])? == 0;
                    selection.online = Some(is_online);
                }
                Some((key, value)) if key.eq_ignore_ascii_case("sort") && selection.sort.is_none() => {
                    let place = one_of("ls: sort", value, &SortKey::ALL.map(SortKey::as_str))?;
                    selection.sort = SortKey::ALL.get(place).copied();
                }
                None if cluster.is_none() => cluster = Some(word.to_owned()),
                _ => return Err(self.unexpected(word)),
            }
        }
        if cluster.is_none() && !selection.is_all() {
            return Err(self.missing("CLUSTER"));
        }
        Ok(Command::Ls {
            cluster,
            form,
            selection,
        })
    }

    fn sessions(&mut self) -> Result<Command, Reply> {
        let json = self.option(&["--json"])?.is_some();
        let cluster = self.word("CLUSTER")?;
        let mut member = None;
        let mut limit = SESSIONS_LISTED;
        // A name has no `=`, so the two are never confused.
        while let Some(word) = self.words.next() {
            match word.split_once('=') {
                Some((key, value)) if key.eq_ignore_ascii_case("limit") => {
                    limit = value
                        .parse()
                        .ok()
                        .filter(|&n| n <= SESSIONS_LISTED_MAX)
                        .ok_or_else(|| {
                            let want = format!("want a whole number from 0 to {SESSIONS_LISTED_MAX}");
                            Reply::error(format!("limit \"{}\": {want}", shown(value)))
                        })?;
                }
                None if member.is_none() => member = Some(word.to_owned()),
                _ => return Err(self.unexpected(word)),
            }
        }
        Ok(Command::Sessions {
            cluster,
            member,
            limit,
            json,
        })
    }

    fn wait(&mut self) -> Result<Wait, Reply> {
        let cluster = self.word("CLUSTER")?;
        let name = self.word("NAME")?;
        let state = self.word("online, offline or gone")?;
        let until = [Until::Online, Until::Offline, Until::Gone];
        let place = one_of("wait: state", &state, &until.map(Until::as_str))?;
        let until = until.get(place).copied().unwrap_or(Until::Gone);
        let limit = if self.keyword("-t") {
            self.seconds()?
        } else {
            WAIT_MAX
        };
        Ok(Wait {
            cluster,
            name,
            until,
            limit,
        })
    }

    /// What follows `-t`.
    fn seconds(&mut self) -> Result<Duration, Reply> {
        let text = self.word("SECONDS")?;
        let seconds = text
            .parse()
            .ok()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        seconds.filter(|limit| *limit <= WAIT_MAX).ok_or_else(|| {
            let want = format!("want a number from 0 to {}", WAIT_MAX.as_secs());
            Reply::error(format!("{}: -t \"{}\": {want}", self.entry.title(), shown(&text)))
        })
    }

    fn trace(&mut self) -> Result<Command, Reply> {
        let json = self.option(&["--json"])?.is_some();
        let cluster = self.word("CLUSTER")?;
        let calls = self.word("CALL-ID, * or last")?;
        let (mut limit, mut lines) = (None, None);
        while let Some(word) = self.words.next() {
            match word.split_once('=') {
                None if word.eq_ignore_ascii_case("-t") && limit.is_none() => limit = Some(self.seconds()?),
                Some((key, value)) if key.eq_ignore_ascii_case("limit") && lines.is_none() => {
                    let number = value.parse().ok().filter(|&n: &u64| n > 0);
                    lines = Some(number.ok_or_else(|| {
                        Reply::error(format!(
                            "trace: limit \"{}\": want a whole number from 1 on",
                            shown(value)
                        ))
                    })?);
                }
                _ => return Err(self.unexpected(word)),
            }
        }
        let (lines, time) = (lines.unwrap_or(u64::MAX), limit.unwrap_or(WAIT_MAX));
        if calls.eq_ignore_ascii_case("last") {
            return Ok(Command::TraceLast { cluster, json, lines });
        }
        Ok(Command::Trace(Trace {
            cluster,
            calls: if calls == "*" {
                TracedCalls::All
            } else {
                TracedCalls::One(calls)
            },
            limit: time,
            lines,
            json,
        }))
    }

    fn help(&mut self) -> Result<Command, Reply> {
        let Some(word) = self.words.next() else {
            return Ok(Command::Help(commands::COMMANDS.iter().collect()));
        };
        let mut rows: Vec<_> = commands::forms(word).collect();
        if rows.is_empty() {
            let known = commands::names().collect::<Vec<_>>().join(", ");
            return Err(Reply::error(format!(
                "help: \"{}\" is no command: want one of {known}",
                shown(word)
            )));
        }
        if let Some(action) = self.words.peek() {
            rows.retain(|entry| commands::is_one_of(action, entry.actions));
            if !rows.is_empty() {
                self.words.next();
            }
        }
        Ok(Command::Help(rows))
    }

    fn end(&mut self) -> Result<(), Reply> {
        self.words
            .next()
            .map_or(Ok(()), |word| Err(self.unexpected(word)))
    }
}

/// A word as a message shows it: its beginning is enough to recognise it.
fn shown(word: &str) -> String {
    const SHOWN: usize = 64;
    match word.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", word.get(..end).unwrap_or_default()),
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model;

    fn command(line: &str) -> Command {
        match parse(line) {
            Ok(Some((_, command))) => command,
            other => panic!("{line}: {other:?}"),
        }
    }

    /// The last line of the reply that refuses `line`.
    fn error(line: &str) -> String {
        match parse(line) {
            Err(reply) => reply.verdict(),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn commands_and_keywords_are_taken_in_any_case_and_names_keep_theirs() {
        for line in [
            "modify C1 delete R1 now",
            "MODIFY C1 Delete R1 NOW",
            " modify\tC1  remove R1 now ",
        ] {
            let (cluster, name) = ("C1".to_owned(), "R1".to_owned());
            assert_eq!(
                command(line),
                Command::Delete {
                    cluster,
                    name,
                    now: true
                },
                "{line}"
            );
        }
        let (cluster, name) = ("c1".to_owned(), "r1".to_owned());
        assert_eq!(command("modify c1 PAUSE r1"), Command::Suspend { cluster, name });
        assert_eq!(command("EXIT"), Command::Quit);
        assert_eq!(command("q"), Command::Quit);
        let (cluster, form) = (None, StatsForm::Json);
        assert_eq!(command("Stats --JSON"), Command::Stats { cluster, form });
    }

    #[test]
    fn a_blank_line_is_no_command() {
        assert_eq!(parse(""), Ok(None));
        assert_eq!(parse(" \t "), Ok(None));
    }

    #[test]
    fn ls_takes_its_options_before_the_name() {
        let ls = |cluster: Option<&str>, form| Command::Ls {
            cluster: cluster.map(str::to_owned),
            form,
            selection: Selection::default(),
        };
        assert_eq!(command("ls"), ls(None, ListForm::Plain));
        assert_eq!(
            command("ls Supercluster#1"),
            ls(Some("Supercluster#1"), ListForm::Plain)
        );
        assert_eq!(command("ls -v C"), ls(Some("C"), ListForm::Verbose));
        assert_eq!(command("ls --json"), ls(None, ListForm::Json));
        assert_eq!(command("ls -- -v"), ls(Some("-v"), ListForm::Plain));
        assert!(
            error("ls -x").starts_with("ERROR: ls: unknown option \"-x\": want ls [-v|--json] [CLUSTER]")
        );
        assert!(error("ls -v --json").contains("exclude each other"));
        assert!(error("ls C D").starts_with("ERROR: ls: unexpected \"D\": want ls "));
    }

    #[test]
    fn a_member_without_status_is_active() {
        let line = "modify Supercluster#2 add name=another_proxy,protocol=udp,address=1.2.3.4:567,capacity=120,weight=300";
        let Command::Add { cluster, member } = command(line) else {
            panic!("no add")
        };
        assert_eq!(cluster, "Supercluster#2");
        assert_eq!(member.name.as_str(), "another_proxy");
        assert_eq!(member.status, model::Status::Active);
        assert_eq!((member.weight, member.capacity), (300, 120));
        // Blanks after the commas are no part of a key, keys come in any case and order.
        let same = "modify Supercluster#2 add weight=300, CAPACITY=120, address=1.2.3.4:567, protocol=UDP, name=another_proxy";
        assert_eq!(command(same), command(line));
    }

    #[test]
    fn wrong_values_name_the_key_the_value_and_what_would_be_right() {
        let add = |pairs: &str| error(&format!("modify C add {pairs}"));
        let good = "name=R,protocol=udp,address=1.2.3.4:5,capacity=1";
        for (reply, parts) in [
            (add(&format!("{good},weight=1e3")), ["weight", "\"1e3\"", "65535"]),
            (
                add(&format!("{good},weight=65536")),
                ["weight", "\"65536\"", "65535"],
            ),
            (add(&format!("{good},weight=1,colour=red")), ["colour", "", ""]),
            (add(good), ["weight", "", ""]),
            (
                add(&format!("{good},weight=1,Weight=2")),
                ["Weight", "\"2\"", "once"],
            ),
            (add("frob"), ["modify add", "\"frob\"", "KEY=VALUE"]),
            (
                add(""),
                [
                    "modify add",
                    "KEY=VALUE is missing",
                    "modify CLUSTER add name=NAME",
                ],
            ),
            (error("modify C set R weight=x"), ["weight", "\"x\"", "65535"]),
            (
                error("modify C set R"),
                ["modify set", "KEY=VALUE is missing", "want modify CLUSTER set"],
            ),
        ] {
            assert!(
                parts.iter().all(|part| reply.contains(part)),
                "{reply}: want {parts:?}"
            );
        }
    }

    #[test]
    fn ten_thousand_pairs_are_refused_whole() {
        let reply = error(&format!("modify C add {}", vec!["a=1"; 10_000].join(",")));
        assert_eq!(reply, "ERROR: modify add: 10000 pairs: want at most 32");
    }

    #[test]
    fn unknown_words_are_named_before_the_error() {
        let Err(reply) = parse("frob x") else {
            panic!("taken")
        };
        assert_eq!(reply.verdict(), "ERROR: unknown command");
        let mut sent = Vec::new();
        reply.write_to(&mut sent);
        assert!(sent.starts_with(b"frob: no such command; there are ls, modify, cluster, "));
        assert_eq!(
            error("modify C explode R"),
            "ERROR: unsupported action: \"explode\""
        );
        assert_eq!(error("cluster explode"), "ERROR: unsupported action: \"explode\"");
    }

    #[test]
    fn missing_words_are_named_with_the_whole_form() {
        for (line, missing, form) in [
            ("modify", "CLUSTER", "add, delete"),
            ("modify C", "what to do", "suspend, resume, set"),
            (
                "modify C delete",
                "NAME is missing",
                "modify CLUSTER delete NAME [now]",
            ),
            ("cluster", "what to do", "add, delete"),
            (
                "cluster delete",
                "CLUSTER is missing",
                "cluster delete CLUSTER [now]",
            ),
            (
                "locate C",
                "CALL-ID is missing",
                "want locate [--json] CLUSTER CALL-ID",
            ),
            ("check", "FILE is missing", "check FILE"),
            ("sessions", "CLUSTER is missing", "want sessions [--json] CLUSTER"),
            (
                "wait C R",
                "online, offline or gone is missing",
                "wait CLUSTER NAME",
            ),
            (
                "modify C delete R later",
                "unexpected \"later\"",
                "modify CLUSTER delete NAME [now]",
            ),
            ("reload now", "unexpected \"now\"", "want reload"),
        ] {
            let reply = error(line);
            assert!(reply.contains(missing) && reply.contains(form), "{line}: {reply}");
        }
    }

    #[test]
    fn waits_have_a_bound() {
        let Command::Wait(wait) = command("wait C R GONE -t 2.5") else {
            panic!("no wait")
        };
        assert_eq!(
            (wait.until, wait.limit),
            (Until::Gone, Duration::from_millis(2500))
        );
        let Command::Wait(wait) = command("wait C R online") else {
            panic!("no wait")
        };
        assert_eq!((wait.until, wait.limit), (Until::Online, WAIT_MAX));
        for seconds in ["-1", "86401", "NaN", "inf", "1e99", "soon"] {
            assert_eq!(
                error(&format!("wait C R gone -t {seconds}")),
                format!("ERROR: wait: -t \"{seconds}\": want a number from 0 to 86400")
            );
        }
        assert!(error("wait C R here").contains("\"here\": want online, offline or gone"));
    }

    #[test]
    fn members_are_selected_by_state_and_order() {
        let Command::Ls { selection, .. } = command("ls -v C Sort=DELAY state=OFFLINE") else {
            panic!("no list")
        };
        assert_eq!(
            (selection.online, selection.sort),
            (Some(false), Some(SortKey::Delay))
        );
        assert_eq!(
            error("ls C state=gone"),
            "ERROR: ls: state \"gone\": want online or offline"
        );
        assert_eq!(
            error("ls C sort=age"),
            "ERROR: ls: sort \"age\": want load, name, delay or sessions"
        );
        assert!(error("ls state=online").contains("CLUSTER is missing"));
        assert!(error("ls C sort=name sort=load").contains("unexpected \"sort=load\""));
    }

    #[test]
    fn a_trace_has_a_call_and_bounds() {
        let trace = |calls, limit, lines| {
            Command::Trace(Trace {
                cluster: "C".into(),
                calls,
                limit,
                lines,
                json: false,
            })
        };
        let one = TracedCalls::One("a@b".into());
        assert_eq!(command("trace C a@b"), trace(one.clone(), WAIT_MAX, u64::MAX));
        let bounded = trace(one, Duration::from_secs(5), 9);
        assert_eq!(command("trace C a@b limit=9 -t 5"), bounded);
        assert_eq!(command("TRACE C a@b -T 5 LIMIT=9"), bounded);
        assert_eq!(command("trace C *"), trace(TracedCalls::All, WAIT_MAX, u64::MAX));
        assert_eq!(
            command("trace --json C last limit=3"),
            Command::TraceLast {
                cluster: "C".into(),
                json: true,
                lines: 3
            }
        );
        assert_eq!(command("watch --JSON"), Command::Watch { json: true });
        assert!(error("trace C").contains("CALL-ID, * or last is missing"));
        assert!(error("trace C * limit=0").contains("want a whole number from 1 on"));
        assert_eq!(
            error("trace C * -t soon"),
            "ERROR: trace: -t \"soon\": want a number from 0 to 86400"
        );
    }

    #[test]
    fn sessions_take_a_member_and_a_limit() {
        let sessions = |member: Option<&str>, limit| Command::Sessions {
            cluster: "C".into(),
            member: member.map(str::to_owned),
            limit,
            json: false,
        };
        assert_eq!(command("sessions C"), sessions(None, SESSIONS_LISTED));
        assert_eq!(command("sessions C R limit=5"), sessions(Some("R"), 5));
        assert_eq!(command("sessions C Limit=0"), sessions(None, 0));
        assert_eq!(
            error("sessions C limit=x"),
            "ERROR: limit \"x\": want a whole number from 0 to 100000"
        );
        assert!(error("sessions C limit=100001").contains("100001"));
        assert!(error("sessions C R S").contains("unexpected \"S\""));
    }

    #[test]
    fn paths_are_absolute_and_may_hold_blanks() {
        assert_eq!(
            command("check /etc/my file.xml"),
            Command::Check("/etc/my file.xml".into())
        );
        assert_eq!(
            command("save --force"),
            Command::Save {
                file: None,
                force: true
            }
        );
        assert_eq!(
            command("save /x"),
            Command::Save {
                file: Some("/x".into()),
                force: false
            }
        );
        assert_eq!(
            error("check rtp.xml"),
            "ERROR: \"rtp.xml\": want a path that starts with /"
        );
    }

    #[test]
    fn help_shows_the_forms_of_one_command() {
        let rows = |line: &str| match command(line) {
            Command::Help(rows) => rows.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!(rows("help"), commands::COMMANDS.len());
        assert_eq!(rows("help MODIFY"), 5);
        assert_eq!(rows("help modify set"), 1);
        assert!(error("help frob").contains("\"frob\" is no command"));
    }

    #[test]
    fn a_message_shows_the_beginning_of_a_long_word() {
        let reply = error(&format!("modify C {} R", "é".repeat(30_000)));
        assert_eq!(
            reply,
            format!("ERROR: unsupported action: \"{}…\"", "é".repeat(64))
        );
    }
}
