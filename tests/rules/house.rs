//! The shape of the source.

use super::{code, files};

/// What stands at the top of the repository, and no more.
const TOP: [&str; 12] = [
    ".",
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE",
    "README.md",
    "src",
    "etc",
    "man",
    "tests",
    "packaging",
    ".ci",
    ".github",
];

/// Words of code that touch the world. Addresses come from `core::net`, which has no sockets.
const IMPURE: [&str; 24] = [
    "std::net",
    "os::unix::net",
    "std::fs",
    "fs::",
    "File::",
    "OpenOptions",
    "std::thread",
    "thread::",
    "crossbeam",
    "mpsc",
    "parking_lot",
    "Mutex<",
    "RwLock<",
    "Condvar",
    "channel(",
    "RandomState",
    "log::",
    "Instant::now",
    "SystemTime",
    "rim::now",
    "println!",
    "eprintln!",
    "std::process",
    "env::var",
];

/// Lines of code in a file, without tests, comments and blank lines, from which on there must be a second room.
const LONG: usize = 500;

#[test]
fn the_top_of_the_repository_holds_only_what_belongs_there() {
    for file in files::tracked() {
        let top = file.split('/').next().unwrap_or_default();
        let is_dot_file = top.starts_with('.') && !file.contains('/');
        assert!(
            TOP.contains(&top) || is_dot_file,
            "{file}: does not belong at the top"
        );
    }
}

#[test]
fn pure_files_do_no_io() {
    let mut pure = 0;
    for (file, code) in code::all() {
        if !is_pure(&file) {
            continue;
        }
        pure += 1;
        for (number, line) in code.lines().enumerate() {
            let impure = |word: &&&str| line.contains(**word);
            if let Some(word) = IMPURE.iter().find(impure) {
                panic!(
                    "{file}:{}: {word} in a file that is pure: {}",
                    number + 1,
                    line.trim()
                );
            }
        }
    }
    assert!(pure > 40, "only {pure} pure files were found");
}

/// Files of the pure rooms, and those that say so of themselves.
fn is_pure(file: &str) -> bool {
    let rooms = ["src/protocol/", "src/dispatch/", "src/config/"];
    let in_room = rooms.iter().any(|room| file.starts_with(room)) && file != "src/config/read.rs";
    in_room || says_that_it_is_pure(file)
}

fn says_that_it_is_pure(file: &str) -> bool {
    let text = files::read(file);
    let head: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//!")).collect();
    head.join("").contains(" Pure")
}

#[test]
fn the_files_that_must_be_pure_say_so() {
    for file in [
        "src/health/watch.rs",
        "src/admin/grammar.rs",
        "src/admin/commands.rs",
        "src/admin/render.rs",
        "src/admin/render_json.rs",
        "src/admin/render_prometheus.rs",
        "src/daemon/flags.rs",
        "src/daemon/options.rs",
        "src/console/options.rs",
    ] {
        assert!(says_that_it_is_pure(file), "{file}");
    }
}

#[test]
fn the_tour_names_each_thread_and_no_file_that_is_not_there() {
    let tour = files::read("src/lib.rs");
    for file in files::sources() {
        if let Some(thread) = file
            .strip_prefix("src/")
            .filter(|file| file.ends_with("_thread.rs"))
        {
            assert!(
                tour.contains(&format!("`{thread}`")),
                "{thread}: the tour in src/lib.rs does not name it"
            );
        }
    }
    for quoted in tour.split('`').skip(1).step_by(2) {
        if files::has_extension(quoted, "rs") {
            assert!(
                files::exists(&format!("src/{quoted}")),
                "the tour names {quoted}, which is not there"
            );
        }
    }
}

/// Calls that block until there is news.
const WAITS: [&str; 9] = [
    ".recv()",
    ".recv_deadline(",
    ".recv_timeout(",
    ".wait(&mut",
    ".wait_for(",
    ".wait_until(",
    "poll(",
    "epoll::wait(",
    "kevent(",
];

/// A thread that waits elsewhere would seem to hang, or hang unseen. The main thread is who asks the watchdog.
#[test]
fn every_thread_waits_where_the_watchdog_sees_it() {
    for (file, code) in code::all() {
        let is_thread = file.ends_with("_thread.rs") && !file.ends_with("signal_thread.rs");
        if is_thread
            || ["src/link/", "src/rim/", "src/cluster/"]
                .iter()
                .any(|room| file.starts_with(room))
        {
            let unseen = unseen_waits(&code);
            assert!(unseen.is_empty(), "{file}: not within rim::idle: {unseen:?}");
        }
        if is_thread {
            // The wait of a poller is one.
            let waits = code.contains("idle(") || code.contains("poller.wait(");
            assert!(waits, "{file}: nothing waits in rim::idle");
        }
    }
}

/// Lines of `code` that wait outside of the brackets of `idle(`. A look that takes no time says so: `zero`.
fn unseen_waits(code: &str) -> Vec<&str> {
    let seen: Vec<_> = code
        .match_indices("idle(")
        .map(|(at, _)| at..closing(code, at))
        .collect();
    let waits = WAITS.iter().flat_map(|word| code.match_indices(word));
    let unseen = waits.filter(|(at, word)| {
        let before = &code[..*at];
        // `self.poll(` and `fn poll(` are ours; the system's stands alone.
        let is_other = word.starts_with(|c: char| c.is_alphabetic())
            && (before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.')
                || before.ends_with("fn "));
        !is_other
            && !code[*at..closing(code, *at)].contains("zero")
            && !seen.iter().any(|idle| idle.contains(at))
    });
    unseen
        .map(|(at, _)| {
            let begin = code[..at].rfind('\n').map_or(0, |end| end + 1);
            code[begin..].lines().next().unwrap_or_default().trim()
        })
        .collect()
}

/// Where the first bracket after `from` closes.
fn closing(code: &str, from: usize) -> usize {
    let mut depth = 0_u32;
    for (at, c) in code[from..].char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth <= 1 => return from + at,
            ')' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

#[test]
fn a_wait_that_the_watchdog_does_not_see_is_found_beside_one_that_it_sees() {
    let seen = "idle(|| match next {\n  Some(at) => inbox.recv_deadline(at),\n  None => inbox.recv(),\n});";
    for other in [
        "",
        "self.poll(now);",
        "fn poll() {}",
        "poll(&mut fds, Some(&zero));",
    ] {
        assert_eq!(unseen_waits(&format!("{seen}\n{other}")), [""; 0]);
    }
    for wait in [
        "inbox.recv();",
        "poll(&mut fds, None);",
        "changed.wait_for(&mut state, RETRY);",
    ] {
        assert_eq!(unseen_waits(&format!("{seen}\n  {wait}\n")), [wait]);
    }
}

#[test]
fn every_file_opens_with_its_rule() {
    for file in files::tracked() {
        if files::has_extension(&file, "rs") {
            // A crate's attributes may stand before it.
            let text = files::read(&file);
            let first = text.lines().find(|line| !line.starts_with("#!["));
            assert!(
                first.is_some_and(|line| line.starts_with("//! ")),
                "{file}: want //! and its rule first"
            );
        }
    }
}

#[test]
fn nothing_is_unwrapped_outside_tests() {
    for (file, code) in code::all() {
        for (number, line) in code.lines().enumerate() {
            assert!(
                !line.contains(".unwrap()"),
                "{file}:{}: {}",
                number + 1,
                line.trim()
            );
        }
    }
}

#[test]
fn nothing_is_left_for_later() {
    for (file, code) in code::all() {
        for word in ["todo!(", "unimplemented!(", "dbg!("] {
            assert!(!code.contains(word), "{file}: {word}");
        }
    }
}

#[test]
fn nothing_names_a_machine_or_a_mirror() {
    // The last byte apart, so that this file does not name them.
    let here = env!("CARGO_MANIFEST_DIR");
    let mut places: Vec<String> = ["/work", "/tmp/wt", "/builds"]
        .map(|place| format!("{place}/"))
        .to_vec();
    // A checkout in the home of its owner or in a directory of its own, not in one that everybody has.
    if here.matches('/').count() > 1 {
        places.push(here.to_owned());
    }
    for file in files::tracked() {
        let Some(text) = files::text(&file) else { continue };
        for place in &places {
            assert!(!text.contains(place), "{file}: names {place}");
        }
        for host in hosts(&text) {
            assert!(
                is_public(host),
                "{file}: names the host {host}; the rules know those that everybody can reach"
            );
        }
    }
}

/// The hosts of the addresses of web pages in `text`.
fn hosts(text: &str) -> impl Iterator<Item = &str> {
    text.split("://")
        .skip(1)
        .zip(text.split("://"))
        .filter_map(|(after, before)| {
            let scheme = before.rsplit(|c: char| !c.is_ascii_alphanumeric()).next()?;
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '-'));
            let host = after.get(..end.unwrap_or(after.len()))?;
            (scheme.starts_with("http") && host.contains('.')).then_some(host)
        })
}

/// Pages that we send a reader to, names of formats, and this machine. Nothing is fetched by address: packages come by
/// name.
fn is_public(host: &str) -> bool {
    let formats = ["json-schema.org", "www.w3.org"];
    ["github.com", "127.0.0.1", "rustup.rs", "www.debian.org"].contains(&host)
        || formats.contains(&host)
        || host
            .rsplit_once("example.")
            .is_some_and(|(_, top)| ["org", "net", "com"].contains(&top))
}

/// A file past this is two files.
#[test]
fn no_file_is_too_long_to_be_read_at_once() {
    for (file, code) in code::all() {
        let lines = code.lines().filter(|line| !line.trim().is_empty()).count();
        assert!(lines <= LONG, "{file}: {lines} lines of code, more than {LONG}");
    }
}

#[test]
fn every_bench_and_test_of_the_manifest_is_there() {
    let manifest = files::read("Cargo.toml");
    for line in manifest.lines() {
        if let Some(path) = line
            .strip_prefix("path = \"")
            .and_then(|rest| rest.strip_suffix('"'))
        {
            assert!(files::exists(path), "Cargo.toml: {path}");
        }
    }
}
