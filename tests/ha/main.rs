//! A pair of hosts, as `packaging/ha/` has them: two machines with an rtp_cluster each, over three RTPproxies, with real
//! keepalived, Kamailio and sipp, in a network and with processes of its own. The host in use dies under calls, or
//! its rtp_cluster hangs. It needs root, for the networks.

#![cfg(test)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, process};

/// As the story says.
const CALLS: u64 = 200;
const ESTABLISHED: u64 = 30;

/// What the story told, and the directory with its files.
struct Told {
    text: String,
    dir: PathBuf,
}

impl Told {
    /// The story of one way to reach the two hosts.
    fn of(way: &str) -> Self {
        let dir = env::temp_dir().join(format!("rtpc-ha-{way}-{}", process::id()));
        // What a killed run with the same number has left behind is nobody's any more.
        drop(fs::remove_dir_all(&dir));
        fs::create_dir_all(&dir).expect("a directory");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
        let programs = Path::new(env!("CARGO_BIN_EXE_rtp_cluster")).parent();
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        // With a number space of processes of its own, all of them end with the first, whatever way this ends.
        let output = Command::new("unshare")
            .args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh"])
            .arg(repository.join("tests/ha/story.sh"))
            .arg(way)
            .arg(
                target
                    .expect("a directory of the build")
                    .join("rtpproxy/bin/python"),
            )
            .arg(programs.expect("a directory of the build"))
            .arg(repository)
            .arg(&dir)
            .output()
            .expect("unshare is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "the files of this story stay in {}; it needs root, and what tests/run.sh installs\n{text}{}",
            dir.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        Self { text, dir }
    }

    /// The number behind the first of these words.
    fn number(&self, name: &str) -> u64 {
        let mut lines = self.text.lines().map(str::trim_start);
        let number = lines.find_map(|line| {
            line.strip_prefix(name)?
                .trim_start_matches(" =")
                .trim()
                .parse()
                .ok()
        });
        number.unwrap_or_else(|| panic!("{name}: {}: {}", self.dir.display(), self.text))
    }

    /// No call was lost, and none was at two members.
    fn is_sound(&self) {
        let place = format!("see {}:\n{}", self.dir.display(), self.text);
        assert!(self.number("established") >= ESTABLISHED, "{place}");
        assert_eq!(self.number("caller"), 0, "not every call succeeded; {place}");
        // A re-INVITE that came to a member without the call would have made a session there, and a delete that did would
        // have left one: the story has waited until there is none.
        assert_eq!(self.number("created"), CALLS, "one session a call; {place}");
        // Twice 50 packets from each caller, and back; the last of them may be under way at the end.
        let relayed = self.number("relayed");
        assert!(relayed >= CALLS * 160, "{place}");
        // The host that took over knew none of the calls, and found each where its hash says.
        let asked_all = self.number("asked all");
        assert!(asked_all < ESTABLISHED, "{place}");
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).expect("a log")
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            drop(fs::remove_dir_all(&self.dir));
        }
    }
}

#[test]
fn no_call_is_lost_with_the_host_that_had_the_address() {
    let told = Told::of("moving");
    told.is_sound();
    // To Kamailio it is one RTPproxy that was slow for a moment.
    let log = told.log("kamailio.log");
    assert!(!log.contains("does not respond"), "{log}");
}

#[test]
fn a_host_whose_rtp_cluster_hangs_gives_the_address_away_and_no_call_is_lost() {
    let told = Told::of("hanging");
    told.is_sound();
    let log = told.log("kamailio.log");
    assert!(!log.contains("does not respond"), "{log}");
}

#[test]
fn no_call_is_lost_with_one_of_two_dispatchers_that_kamailio_knows() {
    let told = Told::of("two");
    told.is_sound();
    let log = told.log("kamailio.log");
    assert!(
        !log.contains("proxy <udp:10.0.0.3:22222> does not respond"),
        "{log}"
    );
}
