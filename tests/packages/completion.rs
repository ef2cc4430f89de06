//! Completion in the shells, with the packages' own programs and a running daemon.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::built::{program, run, top};
use crate::support::place::Place;
use crate::support::process::Process;
use crate::support::wait::{self, LONG};

fn file(name: &str) -> PathBuf {
    top().join("packaging/completion").join(name)
}

/// What bash offers for the last of `words`.
fn offered(name: &str, words: &[&str]) -> Vec<String> {
    let script = r#"source "$1"; function=$2; shift 2; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
$function "$1"; printf '%s\n' "${COMPREPLY[@]}""#;
    let mut command = Command::new("bash");
    command
        .args(["-c", script, "bash"])
        .arg(file(&format!("{name}.bash")));
    command.arg(format!("_{name}")).arg(program(name)).args(words);
    run(&mut command).lines().map(str::to_owned).collect()
}

/// A daemon with two clusters.
fn serving(place: &Place) -> (Process, PathBuf) {
    let admin = place.path("admin.sock");
    let cluster = |name: &str, members: &str| {
        let address = place.path(name);
        format!(
            "<rtp_cluster><name>{name}</name><protocol>UNIX</protocol><address>{}</address>{members}</rtp_cluster>",
            address.display()
        )
    };
    let member = "<rtpproxy><name>R1</name><protocol>UDP</protocol><address>127.0.0.1:9</address>\
                  <weight>1</weight><capacity>1</capacity></rtpproxy>";
    let text = format!(
        "<rtp_cluster_config>{}{}</rtp_cluster_config>",
        cluster("North#1", member),
        cluster("South#1", "")
    );
    fs::write(place.path("c.xml"), text).expect("a file");
    let mut command = Command::new(program("rtp_cluster"));
    command
        .arg("-f")
        .arg("-c")
        .arg(place.path("c.xml"))
        .arg("-P")
        .arg(place.path("pid"));
    let daemon = Process::start("rtp_cluster", command.arg("-s").arg(&admin));
    wait::until_true("the daemon", LONG, || Path::new(&admin).exists());
    (daemon, admin)
}

#[test]
fn bash_offers_every_flag_of_the_programs_that_serve() {
    for (name, short) in [("rtp_cluster", "-c"), ("rtp_cluster_status", "-l")] {
        let flags = offered(name, &["-"]);
        let help = run(Command::new(program(name)).arg("--help"));
        let long = help.split_whitespace().filter(|word| word.starts_with("--"));
        for flag in long {
            assert!(flags.iter().any(|offer| offer == flag), "{flag} in {flags:?}");
        }
        assert!(flags.iter().any(|offer| offer == short));
    }
    assert!(offered("rtp_cluster", &["-u", "roo"]).contains(&"root".to_owned()));
}

#[test]
fn bash_offers_commands_and_names_that_the_daemon_knows() {
    let place = Place::new();
    let (_daemon, admin) = serving(&place);
    let socket = admin.to_str().expect("a name");
    let offered = |words: &[&str]| offered("rtp_cluster_client", &[&["-s", socket], words].concat());
    let commands = offered(&[""]);
    for command in ["ls", "modify", "reload", "stats", "top", "test", "doctor"] {
        assert!(
            commands.iter().any(|offer| offer == command),
            "{command} in {commands:?}"
        );
    }
    assert_eq!(offered(&["ls", "N"]), ["North#1"]);
    assert_eq!(offered(&["modify", "North#1", "sus"]), ["suspend"]);
    assert_eq!(offered(&["modify", "North#1", "suspend", ""]), ["R1"]);
    assert_eq!(offered(&["cluster", "delete", "S"]), ["South#1"]);
    assert_eq!(offered(&["wait", "North#1", "R1", "on"]), ["online"]);
    assert_eq!(offered(&["test", "North#1", ""]), ["R1"]);
    assert_eq!(offered(&["doctor", "S"]), ["South#1"]);
    assert_eq!(offered(&["help", "rel"]), ["reload"]);
}

#[test]
fn zsh_can_read_its_files_and_they_name_every_flag() {
    let text = |name: &str| fs::read_to_string(file(name)).expect("it is there");
    for (name, program_name) in [
        ("_rtp_cluster", "rtp_cluster"),
        ("_rtp_cluster_client", "rtp_cluster_client"),
        ("_rtp_cluster_status", "rtp_cluster_status"),
    ] {
        run(Command::new("zsh").arg("-n").arg(file(name)));
        let help = run(Command::new(program(program_name)).arg("--help"));
        let flags = help.split_whitespace().filter(|word| word.starts_with("--"));
        for flag in flags {
            assert!(text(name).contains(flag), "{flag} in {name}");
        }
    }
}
