//! The man pages and the programs name the same things: what a page says is there, and what is there is said.

use core::time::Duration;
use std::collections::BTreeSet;
use std::process::Command;

use rtp_cluster::admin::commands::{Access, COMMANDS};
use rtp_cluster::admin::{command, grammar, render_prometheus};
use rtp_cluster::config::{ELEMENTS, Times};
use rtp_cluster::console::{options as client, own};
use rtp_cluster::daemon::flags as daemon;
use rtp_cluster::dispatch::view::{CLUSTER_COUNTERS, MEMBER_COUNTERS};
use rtp_cluster::status::flags as status;

use super::mdoc::Page;
use super::{code, files};

const DAEMON: &str = "man/rtp_cluster.8";
const CLIENT: &str = "man/rtp_cluster_client.8";
const STATUS: &str = "man/rtp_cluster_status.8";
const FILE: &str = "man/rtp_cluster.xml.5";

/// `left` and `right` hold the same; says what only one of them has.
fn assert_same<T: Ord + core::fmt::Debug>(what: &str, page: &BTreeSet<T>, program: &BTreeSet<T>) {
    let only_page: Vec<_> = page.difference(program).collect();
    let only_program: Vec<_> = program.difference(page).collect();
    assert!(
        only_page.is_empty() && only_program.is_empty(),
        "{what}: only in the man page {only_page:?}; missing there {only_program:?}"
    );
}

/// What a program prints for `--help`.
fn help(program: &str) -> String {
    let shown = Command::new(program)
        .arg("--help")
        .output()
        .expect("the program runs");
    assert!(shown.status.success());
    String::from_utf8(shown.stdout).expect("help is UTF-8")
}

/// The words of `text` that look like flags: `-s`, `--socket`.
fn flags_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']' | '|' | '"'));
    let is_flag = |word: &&str| {
        let name = word.trim_start_matches('-');
        let dashes = word.len() - name.len();
        let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        is_name && ((dashes == 1 && name.len() == 1) || (dashes == 2 && name.len() > 1))
    };
    words.filter(is_flag).map(str::to_owned).collect()
}

/// The head of a flag in a page and in `--help`, without blanks.
fn head(short: &str, long: &str, value: &str) -> String {
    if short.is_empty() {
        format!("--{long}{value}")
    } else {
        format!("-{short},--{long}{value}")
    }
}

#[test]
fn the_flags_of_the_daemon_are_those_of_its_page() {
    let page = Page::read(DAEMON);
    let heads: BTreeSet<String> = page
        .of("DESCRIPTION", "Fl")
        .map(|item| item.head.clone())
        .collect();
    let table: BTreeSet<String> = daemon::FLAGS
        .iter()
        .map(|flag| head(flag.short, flag.long, flag.value))
        .collect();
    assert_same("flags of rtp_cluster", &heads, &table);
    for flag in daemon::FLAGS {
        let head = head(flag.short, flag.long, flag.value);
        let item = page.of("DESCRIPTION", "Fl").find(|item| item.head == head);
        let said = item.map(|item| item.body.clone()).unwrap_or_default();
        // A packager builds with other ones, the page is about a build from source.
        let is_built_in = option_env!("RTP_CLUSTER_CONFIG").is_none();
        assert!(
            !is_built_in || flag.default.is_empty() || said.contains(&format!("Default: {}.", flag.default)),
            "{head}: want its default {} in {DAEMON}, found: {said}",
            flag.default
        );
    }
}

#[test]
fn the_synopsis_and_the_help_name_each_flag_of_the_daemon() {
    let page = Page::read(DAEMON);
    let synopsis = section(&page.text, "SYNOPSIS");
    let help = help(env!("CARGO_BIN_EXE_rtp_cluster"));
    let mut known = BTreeSet::new();
    for flag in daemon::FLAGS {
        known.insert(format!("--{}", flag.long));
        if flag.short.is_empty() {
            assert!(
                synopsis.contains(&format!("Fl -{}", flag.long)),
                "{} in SYNOPSIS",
                flag.long
            );
        } else {
            known.insert(format!("-{}", flag.short));
            assert!(
                letters(synopsis).contains(flag.short),
                "-{} in SYNOPSIS",
                flag.short
            );
        }
        let shown = help.replace([' ', '\n'], "");
        assert!(
            shown.contains(&head(flag.short, flag.long, flag.value)),
            "--{} in --help",
            flag.long
        );
    }
    // `-vv` is the flag twice.
    let named: BTreeSet<String> = flags_in(&help).into_iter().filter(|flag| flag != "-vv").collect();
    assert_same("--help of rtp_cluster", &named, &known);
}

/// The letters of short flags in a synopsis: `.Op Fl df`, `.Op Fl c Ar FILE`, `.Fl h | V`.
fn letters(synopsis: &str) -> String {
    let mut letters = String::new();
    for line in synopsis.lines().filter(|line| line.contains("Fl ")) {
        let words = line
            .split(' ')
            .filter(|word| word.len() <= 2 && !matches!(*word, "Op" | "Fl" | "Ns" | "Ar"));
        letters.extend(words);
    }
    letters
}

fn section<'a>(text: &'a str, name: &str) -> &'a str {
    let start = text
        .split_once(&format!(".Sh {name}\n"))
        .map_or("", |(_, after)| after);
    start.split("\n.Sh ").next().unwrap_or_default()
}

#[test]
fn the_flags_of_the_client_are_those_of_its_page_and_its_help() {
    let page = Page::read(CLIENT);
    let heads: BTreeSet<String> = page
        .of("DESCRIPTION", "Fl")
        .map(|item| item.head.clone())
        .collect();
    let table: BTreeSet<String> = client::FLAGS
        .iter()
        .map(|flag| head(flag.short, flag.long, flag.value))
        .collect();
    assert_same("flags of rtp_cluster_client", &heads, &table);
    let help = help(env!("CARGO_BIN_EXE_rtp_cluster_client"));
    let known: BTreeSet<String> = client::FLAGS
        .iter()
        .flat_map(|flag| [format!("-{}", flag.short), format!("--{}", flag.long)])
        .collect();
    assert_same("--help of rtp_cluster_client", &flags_in(&help), &known);
}

#[test]
fn the_flags_of_the_status_program_are_those_of_its_page_and_its_help() {
    let page = Page::read(STATUS);
    let heads: BTreeSet<String> = page
        .of("DESCRIPTION", "Fl")
        .map(|item| item.head.clone())
        .collect();
    let table: BTreeSet<String> = status::FLAGS
        .iter()
        .map(|flag| head(flag.short, flag.long, flag.value))
        .collect();
    assert_same("flags of rtp_cluster_status", &heads, &table);
    for flag in status::FLAGS {
        let head = head(flag.short, flag.long, flag.value);
        let item = page.of("DESCRIPTION", "Fl").find(|item| item.head == head);
        let said = item.map(|item| item.body.clone()).unwrap_or_default();
        // As of the daemon: the page is about a build from source.
        let is_built_in = option_env!("RTP_CLUSTER_CONFIG").is_none();
        assert!(
            !is_built_in || said.contains(flag.default),
            "{head}: want its default {} in {STATUS}, found: {said}",
            flag.default
        );
    }
    let help = help(env!("CARGO_BIN_EXE_rtp_cluster_status"));
    let known: BTreeSet<String> = status::FLAGS
        .iter()
        .flat_map(|flag| [format!("-{}", flag.short), format!("--{}", flag.long)])
        .collect();
    assert_same("--help of rtp_cluster_status", &flags_in(&help), &known);
}

#[test]
fn the_commands_are_those_of_the_client_s_page() {
    let page = Page::read(CLIENT);
    let items: Vec<_> = page.of("COMMANDS", "Ic").collect();
    let heads: BTreeSet<String> = items.iter().map(|item| item.head.clone()).collect();
    let plain = |usage: &str| usage.replace(' ', "").replace('…', "...");
    // The client's own commands are those that the daemon knows nothing of.
    let usages = COMMANDS.iter().map(|entry| entry.usage);
    let table: BTreeSet<String> = usages
        .chain(own::OWN.iter().map(|entry| entry.usage))
        .map(plain)
        .collect();
    assert_same("commands", &heads, &table);
    for entry in COMMANDS {
        let head = plain(entry.usage);
        let said = items
            .iter()
            .find(|item| item.head == head)
            .map_or("", |item| &*item.body);
        let others = entry
            .words
            .iter()
            .chain(entry.actions)
            .filter(|word| !entry.usage.contains(**word));
        for other in others {
            assert!(
                said.contains(other),
                "{}: its other name {other} is not in {CLIENT}",
                entry.usage
            );
        }
        assert_eq!(
            said.ends_with("Reads."),
            entry.access == Access::Reads,
            "{}: \"Reads.\" ends what the read-only socket takes",
            entry.usage
        );
    }
}

#[test]
fn help_shows_each_command_of_the_table() {
    let Ok(Some((_, command::Command::Help(rows)))) = grammar::parse("help") else {
        panic!("no help")
    };
    assert_eq!(rows.len(), COMMANDS.len());
    for entry in COMMANDS {
        let word = entry.words.first().copied().unwrap_or_default();
        assert!(
            matches!(
                grammar::parse(&format!("help {word}")),
                Ok(Some((_, command::Command::Help(_))))
            ),
            "help {word}"
        );
    }
}

/// Whose, and which.
type Place = (String, String);

#[test]
fn the_elements_are_those_of_the_parser() {
    let page = Page::read(FILE);
    let mut elements: BTreeSet<Place> = BTreeSet::new();
    let mut attributes: BTreeSet<Place> = BTreeSet::new();
    for item in page.of("DESCRIPTION", "Ic") {
        elements.insert((parent_of(&item.subsection), item.head.clone()));
    }
    for item in page.of("DESCRIPTION", "Cm") {
        let element = item
            .parent
            .and_then(|at| page.items.get(at))
            .expect("attributes stand in an element");
        attributes.insert((element.head.clone(), item.head.clone()));
    }
    let place = |whose: &str, name: &str| (whose.to_owned(), name.to_owned());
    let known = ELEMENTS
        .iter()
        .map(|element| place(element.parent, element.name))
        .collect();
    assert_same("elements", &elements, &known);
    let known = ELEMENTS
        .iter()
        .flat_map(|element| {
            element
                .attributes
                .iter()
                .map(|attribute| place(element.name, attribute.name))
        })
        .collect();
    assert_same("attributes", &attributes, &known);
}

/// `rtpproxy` of `Elements of <rtpproxy>`.
fn parent_of(subsection: &str) -> String {
    let name = subsection
        .split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'));
    name.map_or("", |(name, _)| name).to_owned()
}

#[test]
fn the_page_of_the_configuration_says_the_range_and_the_default_of_each() {
    let page = Page::read(FILE);
    let holds = |said: &str, what: &str| said.to_lowercase().contains(&what.to_lowercase());
    for element in ELEMENTS {
        let item = page
            .of("DESCRIPTION", "Ic")
            .find(|item| parent_of(&item.subsection) == element.parent && item.head == element.name)
            .unwrap_or_else(|| panic!("<{}>", element.name));
        if let Some(range) = element.range {
            assert!(
                holds(&item.body, &range.to_string()),
                "<{}>: want {range}: {}",
                element.name,
                item.body
            );
        }
        let is_optional = element.times == Times::AtMostOnce;
        assert_eq!(
            is_optional,
            item.body.starts_with("Optional"),
            "<{}>: {}",
            element.name,
            item.body
        );
        assert!(
            element.default.is_empty() || item.body.contains(&format!("Default: {}.", element.default)),
            "<{}>: want its default: {}",
            element.name,
            item.body
        );
        for attribute in element.attributes {
            let name = format!("<{} {}>", element.name, attribute.name);
            let item = page
                .of("DESCRIPTION", "Cm")
                .find(|item| {
                    let whose = item.parent.and_then(|at| page.items.get(at));
                    whose.is_some_and(|whose| whose.head == element.name) && item.head == attribute.name
                })
                .unwrap_or_else(|| panic!("{name}"));
            let range = attribute.range.to_string();
            assert!(holds(&item.body, &range), "{name}: want {range}: {}", item.body);
            assert!(
                item.body.contains(&format!("Default: {}", attribute.default)),
                "{name}: want its default: {}",
                item.body
            );
        }
    }
}

#[test]
fn the_counters_are_those_of_the_client_s_page() {
    let page = Page::read(CLIENT);
    for (subsection, counters) in [
        ("Of a cluster", CLUSTER_COUNTERS),
        ("Of a member", MEMBER_COUNTERS),
    ] {
        let listed: BTreeSet<Place> = page
            .of("COUNTERS", "Va")
            .filter(|item| item.subsection == subsection)
            .map(|item| (item.head.clone(), item.body.clone()))
            .collect();
        let known = counters
            .iter()
            .map(|(name, meaning)| ((*name).to_owned(), (*meaning).to_owned()))
            .collect();
        assert_same(subsection, &listed, &known);
    }
}

#[test]
fn the_metrics_are_those_of_the_client_s_page() {
    let page = Page::read(CLIENT);
    let listed: BTreeSet<Place> = page
        .of("COUNTERS", "Va")
        .filter(|item| item.subsection == "Further metrics")
        .map(|item| (item.head.clone(), item.body.clone()))
        .collect();
    let shown = render_prometheus::stats(&[], Duration::ZERO);
    // Those of the tables of counters have lists of their own.
    let is_listed_above = |name: &str| {
        let name = name
            .trim_start_matches("rtp_cluster_")
            .trim_start_matches("member_");
        let counters = CLUSTER_COUNTERS.iter().chain(MEMBER_COUNTERS);
        counters
            .map(|(name, _)| format!("{name}_total"))
            .any(|counter| counter == name)
    };
    let known = shown
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '))
        .filter(|(name, _)| !is_listed_above(name))
        .map(|(name, meaning)| (name.to_owned(), meaning.to_owned()))
        .collect();
    assert_same("metrics", &listed, &known);
}

#[test]
fn our_errors_and_signals_are_those_of_the_daemon_s_page() {
    let page = Page::read(DAEMON);
    let errors: BTreeSet<String> = page
        .of("DIAGNOSTICS", "Li")
        .filter(|item| item.subsection == "Error replies" && item.head.len() == "E999".len())
        .map(|item| item.head.clone())
        .collect();
    let source = files::read("src/protocol/reply.rs");
    let known = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub const ")?.split_once(": u16 = "))
        .map(|(_, number)| format!("E{}", number.trim_end_matches(';')))
        .collect();
    assert_same("our own errors", &errors, &known);

    let signals: BTreeSet<String> = page
        .of("SIGNALS", "Dv")
        .flat_map(|item| item.head.split(',').map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let handled = code::bare(&files::read("src/daemon/signal_thread.rs"));
    let known = handled
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| {
            word.starts_with("SIG") && word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
        })
        .map(str::to_owned)
        .collect();
    assert_same("signals", &signals, &known);
}

#[test]
fn the_variables_of_the_environment_are_those_that_are_read() {
    let pages: BTreeSet<String> = [DAEMON, CLIENT]
        .into_iter()
        .flat_map(|file| Page::read(file).items)
        .filter(|item| item.section == "ENVIRONMENT")
        .flat_map(|item| item.head.split(',').map(str::to_owned).collect::<Vec<_>>())
        .collect();
    // Here the names stand in strings, so comments are all that may mislead; none of them asks for a variable.
    let mut read = BTreeSet::new();
    for (file, _) in code::all() {
        let text = files::read(&file);
        if !text.contains("env::var") {
            continue;
        }
        for call in ["env::var(\"", "env::var_os(\"", "read(\"", "set(\""] {
            let names = text.split(call).skip(1).filter_map(|rest| rest.split('"').next());
            let is_name = |name: &&str| name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
            read.extend(names.filter(is_name).map(str::to_owned));
        }
    }
    assert_same("variables of the environment", &pages, &read);
}

#[test]
fn the_exit_statuses_are_those_of_the_help() {
    let statuses = |file| -> BTreeSet<String> {
        let page = Page::read(file);
        page.items
            .iter()
            .filter(|item| item.section == "EXIT STATUS")
            .map(|item| item.head.clone())
            .collect()
    };
    for (file, program) in [
        (DAEMON, env!("CARGO_BIN_EXE_rtp_cluster")),
        (CLIENT, env!("CARGO_BIN_EXE_rtp_cluster_client")),
        (STATUS, env!("CARGO_BIN_EXE_rtp_cluster_status")),
    ] {
        let help = help(program);
        let told = help
            .lines()
            .find_map(|line| line.strip_prefix("Exit status: "))
            .expect("help tells them");
        let told = told
            .split(", ")
            .filter_map(|status| status.split(' ').next())
            .map(str::to_owned)
            .collect();
        assert_same("exit statuses", &statuses(file), &told);
    }
}

#[test]
fn the_pages_are_clean() {
    for file in [DAEMON, CLIENT, STATUS, FILE] {
        let found = Command::new("mandoc")
            .args(["-T", "lint", "-W", "style"])
            .arg(files::path(file))
            .output()
            .expect("mandoc is installed: sh tests/run.sh installs it");
        let found = String::from_utf8_lossy(&found.stdout).into_owned();
        // Which other pages are installed is this machine's affair; ours are looked at below.
        let found: Vec<&str> = found
            .lines()
            .filter(|line| !line.contains("referenced manual not found"))
            .collect();
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}

#[test]
fn the_pages_refer_to_pages_that_are_there() {
    let elsewhere = ["logrotate 8"];
    for file in [DAEMON, CLIENT, STATUS, FILE] {
        let page = Page::read(file);
        for line in page.text.lines() {
            let Some((_, reference)) = line.split_once("Xr ") else {
                continue;
            };
            let mut words = reference.split(' ');
            let (name, section) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let is_there = files::exists(&format!("man/{name}.{section}"));
            assert!(
                is_there || elsewhere.contains(&&*format!("{name} {section}")),
                "{}: {line}",
                page.file
            );
        }
    }
}

#[test]
fn there_is_a_page_for_each_thing_that_is_installed() {
    let pages: BTreeSet<String> = files::tracked()
        .into_iter()
        .filter(|file| file.starts_with("man/"))
        .collect();
    let wanted = [DAEMON, CLIENT, STATUS, FILE].map(str::to_owned).into();
    assert_same("man/", &pages, &wanted);
}
