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
const IMPURE: [&str; 22] = [
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
    "log::",
    "Instant::now",
    "SystemTime",
    "rim::now",
    "println!",
    "eprintln!",
    "std::process",
    "env::var",
];

/// Lines of a file from which on one looks for a second room.
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
            if let Some(word) = IMPURE.iter().find(|word| line.contains(*word)) {
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

/// A thread that waits elsewhere would seem to hang, or hang unseen. The main thread is who asks the watchdog.
#[test]
fn every_thread_waits_where_the_watchdog_sees_it() {
    for (file, code) in code::all() {
        if file.ends_with("_thread.rs") && !file.ends_with("signal_thread.rs") {
            // The wait of a poller is one.
            let waits = code.contains("idle(") || code.contains("poller.wait(");
            assert!(waits, "{file}: nothing waits in rim::idle");
        }
        if file.ends_with("readiness.rs") {
            assert!(
                code.contains("idle(|| self.poll.poll("),
                "{file}: it waits elsewhere"
            );
        }
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

#[test]
fn long_files_are_told() {
    // To be told, not refused: the next reader decides whether there is a second room.
    for file in files::sources() {
        let lines = files::read(&file).lines().count();
        if lines > LONG {
            println!("{file}: {lines} lines");
        }
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
