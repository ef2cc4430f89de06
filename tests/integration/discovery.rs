//! Members that are found by a name: with a real name server, whose names change under calls.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::bed::{answer, create, delete};
use crate::support::client;
use crate::support::daemon::{Daemon, Files, Listed, config};
use crate::support::member::own_address;
use crate::support::place::Place;
use crate::support::process::Process;
use crate::support::real::{RealMember, free_port};
use crate::support::traffic::Traffic;
use crate::support::wait::{self, LONG};

/// A name server with names of its own.
struct NameServer {
    at: SocketAddr,
    hosts: PathBuf,
    process: Process,
}

fn launch(at: SocketAddr, hosts: &Path, more: &[String]) -> Process {
    let mut command = Command::new("dnsmasq");
    command
        .args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--pid-file",
            "--no-resolv",
            "--no-hosts",
        ])
        .args(["--bind-interfaces", "--local=/test/", "--user="])
        .arg(format!("--listen-address={}", at.ip()))
        .arg(format!("--port={}", at.port()))
        .arg(format!("--addn-hosts={}", hosts.display()))
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Process::start("dnsmasq", &mut command)
}

impl NameServer {
    /// One at which `media.test` leads to these.
    fn start(place: &Place, addresses: &[IpAddr], more: &[String]) -> Self {
        let at = free_port(Ipv4Addr::LOCALHOST.into()).expect("a port");
        let hosts = place.path("names");
        let process = launch(at, &hosts, more);
        let server = Self { at, hosts, process };
        server.lead_to(addresses);
        server
    }

    fn lead_to(&self, addresses: &[IpAddr]) {
        let lines: Vec<String> = addresses.iter().map(|ip| format!("{ip} media.test\n")).collect();
        fs::write(&self.hosts, lines.concat()).expect("a file");
        // A listener shows that it reads signals.
        wait::until_true("the name server listens", LONG, || {
            std::net::TcpStream::connect(self.at).is_ok()
        });
        self.process.signal(Signal::HUP);
    }

    /// The element of a cluster that asks it.
    fn pool(&self, address: &str) -> String {
        format!(
            "<rtpproxies name=\"media\" address=\"{address}\" weight=\"30\" capacity=\"1000\" resolver=\"{}\"/>",
            self.at
        )
    }
}

fn members(place: &Place, count: usize) -> Vec<RealMember> {
    (0..count)
        .map(|n| RealMember::start(place, &format!("r{n}")))
        .collect()
}

fn addresses(members: &[RealMember]) -> Vec<IpAddr> {
    members.iter().map(|member| member.control().ip()).collect()
}

/// What is known of the members of `C1`: name and the rest.
fn listed(daemon: &Daemon) -> Vec<(String, Value)> {
    let text = daemon.admin_ok("ls --json C1");
    let text = text.trim_end().strip_suffix("OK").expect("it ends with OK");
    let all: Value = serde_json::from_str(text).expect("JSON");
    let members = all["clusters"][0]["members"].as_array().expect("a list").clone();
    let named = members.into_iter().map(|member| {
        let name = member["name"].as_str().expect("a name").to_owned();
        (name, member)
    });
    named.collect()
}

fn names(daemon: &Daemon) -> Vec<String> {
    let mut names: Vec<String> = listed(daemon).into_iter().map(|(name, _)| name).collect();
    names.sort();
    names
}

fn names_of(members: &[RealMember]) -> Vec<String> {
    let mut names: Vec<String> = addresses(members)
        .iter()
        .map(|ip| format!("media-{ip}"))
        .collect();
    names.sort();
    names
}

#[test]
fn a_name_that_goes_from_three_to_five_to_two_addresses_costs_no_call() {
    let place = Place::new();
    let all = members(&place, 5);
    let server = NameServer::start(&place, &addresses(&all[..3]), &[]);
    let control = Files::in_place(&place).control;
    let daemon = Daemon::start(&place, &config(&control, &[], &server.pool("media.test:22222")));
    // At once, no wait for it.
    assert_eq!(names(&daemon), names_of(&all[..3]));
    daemon.wait_members(3, 0);
    let traffic = Traffic::start(&control, 100, Duration::from_millis(300));
    let held: Vec<String> = (0..30).map(|n| format!("held-{n}")).collect();
    for call in &held {
        client::media(&client::ask(&control, &create(call)));
    }
    server.lead_to(&addresses(&all));
    daemon.wait_members(5, 0);
    wait::until_true("each has calls", LONG, || {
        all.iter().all(|member| member.sessions() > 0)
    });
    server.lead_to(&addresses(&all[3..]));
    wait::until_true("three drain", LONG, || {
        let draining = listed(&daemon);
        draining
            .iter()
            .filter(|(_, member)| member["status"] == "DRAINING")
            .count()
            == 3
    });
    // Calls that they have are theirs to the end.
    for call in &held {
        assert!(client::ask(&control, &answer(call)).contains(' '), "{call}");
        assert_eq!(client::ask(&control, &delete(call)), "0", "{call}");
    }
    wait::until_true("they are gone", LONG, || names(&daemon) == names_of(&all[3..]));
    let report = traffic.stop();
    assert!(report.bad.is_empty(), "{} calls: {:?}", report.made, report.bad);
    wait::until_true("nothing is left", LONG, || {
        all.iter().map(RealMember::sessions).sum::<u64>() == 0
    });
}

#[test]
fn the_records_of_a_service_have_their_own_ports_and_weights() {
    let place = Place::new();
    let [one, two, spare] = [(); 3].map(|()| free_port(Ipv4Addr::LOCALHOST.into()).expect("a port"));
    let _members =
        [one, two, spare].map(|at| RealMember::start_at(&place, &format!("r{}", at.port()), at, &[]));
    let record = |at: SocketAddr, priority: u16, weight: u16| {
        format!(
            "--srv-host=_rtpproxy._udp.test,media.test,{},{priority},{weight}",
            at.port()
        )
    };
    let records = [record(one, 10, 70), record(two, 10, 20), record(spare, 20, 50)];
    let server = NameServer::start(&place, &[Ipv4Addr::LOCALHOST.into()], &records);
    let control = Files::in_place(&place).control;
    let daemon = Daemon::start(
        &place,
        &config(&control, &[], &server.pool("_rtpproxy._udp.test")),
    );
    daemon.wait_members(3, 0);
    let weight = |at: SocketAddr| {
        let name = format!("media-127.0.0.1-{}", at.port());
        let all = listed(&daemon);
        let (_, member) = all.iter().find(|(known, _)| *known == name).expect("a member");
        assert_eq!(member["found_by"], "media");
        assert_eq!(member["capacity"], 1000);
        member["weight"].as_u64()
    };
    assert_eq!([one, two, spare].map(weight), [Some(70), Some(20), Some(0)]);
}

#[test]
fn a_name_server_that_is_away_or_knows_nothing_changes_nothing() {
    let place = Place::new();
    let all = members(&place, 2);
    let mut server = NameServer::start(&place, &addresses(&all), &[]);
    let control = Files::in_place(&place).control;
    let daemon = Daemon::start(&place, &config(&control, &[], &server.pool("media.test")));
    daemon.wait_members(2, 0);
    let told = |what: &str| {
        wait::until_true(format!("{what}\n{}", daemon.log()), LONG, || {
            daemon.log().contains(what)
        });
        assert_eq!(names(&daemon), names_of(&all));
    };
    server.lead_to(&[]);
    told("media.test:22222: there is no such name, or it has no such record; they stay as they are");
    server.process.kill();
    told("refused");
    // Back, with one less.
    server.process = launch(server.at, &server.hosts, &[]);
    server.lead_to(&addresses(&all[..1]));
    wait::until_true("one is gone", LONG, || names(&daemon) == names_of(&all[..1]));
    assert!(daemon.log().contains("media.test:22222 is found again"));
}

#[test]
fn what_is_found_is_in_no_file_and_obeys_the_operator() {
    let place = Place::new();
    let all = members(&place, 2);
    let server = NameServer::start(&place, &addresses(&all), &[]);
    let control = Files::in_place(&place).control;
    let text = config(&control, &[], &server.pool("media.test"));
    let daemon = Daemon::start(&place, &text);
    daemon.wait_members(2, 0);
    let first = names_of(&all).remove(0);
    client::media(&client::ask(&control, &create("kept")));

    assert_eq!(daemon.admin_ok("diff"), "OK\n");
    daemon.admin_ok(&format!("modify C1 suspend {first}"));
    daemon.admin_ok(&format!("modify C1 set {first} weight=3"));
    assert_eq!(
        daemon.admin_ok("diff"),
        "OK\n",
        "what is found is not in the file"
    );
    daemon.admin_ok("save");
    let saved = fs::read_to_string(&daemon.files().config).expect("the file");
    assert!(saved.contains(&server.pool("media.test:22222")), "{saved}");
    assert!(!saved.contains(&first), "{saved}");
    daemon.admin_ok("reload");
    let (_, member) = listed(&daemon)
        .into_iter()
        .find(|(name, _)| *name == first)
        .expect("it");
    assert_eq!(
        (&member["status"], &member["weight"]),
        (&"SUSPENDED".into(), &3.into())
    );
    let refused = daemon.admin(&format!("modify C1 delete {first}"));
    assert!(
        refused.starts_with("ERROR: ") && refused.contains("it was found by the name of media"),
        "{refused}"
    );
    assert!(daemon.admin_ok("ls -v C1").contains("found by = media\n"));
    assert!(client::ask(&control, &answer("kept")).contains(' '));

    // Without the element they end what they have, and go.
    fs::write(&daemon.files().config, config(&control, &[], "")).expect("the file");
    daemon.admin_ok("reload");
    wait::until_true("one that has a call is left", LONG, || names(&daemon).len() == 1);
    assert_eq!(client::ask(&control, &delete("kept")), "0");
    wait::until_true("none is left", LONG, || names(&daemon).is_empty());
}

#[test]
fn an_address_that_comes_back_is_suspended_as_it_was() {
    let place = Place::new();
    let all = members(&place, 2);
    let server = NameServer::start(&place, &addresses(&all), &[]);
    let control = Files::in_place(&place).control;
    let daemon = Daemon::start(&place, &config(&control, &[], &server.pool("media.test")));
    daemon.wait_members(2, 0);
    let (away, name) = (addresses(&all)[0], format!("media-{}", addresses(&all)[0]));
    let mut ids = (0..100).map(|n| format!("call-{n}"));
    let held = ids.find(|id| client::media(&client::ask(&control, &create(id))).1 == away.to_string());
    let held = held.expect("each gets one of a hundred calls");
    daemon.admin_ok(&format!("modify C1 suspend {name}"));
    let wait_status = |status: &str| {
        wait::until_true(format!("it is {status}"), LONG, || {
            let all = listed(&daemon);
            all.iter()
                .any(|(known, member)| *known == name && member["status"] == status)
        });
    };
    server.lead_to(&addresses(&all[1..]));
    wait_status("DRAINING");
    server.lead_to(&addresses(&all));
    wait::until_true("it is told", LONG, || daemon.log().contains("found again"));
    wait_status("SUSPENDED");
    assert!(client::ask(&control, &answer(&held)).contains(' '));
    // What left while it was in service is in service again.
    daemon.admin_ok(&format!("modify C1 resume {name}"));
    server.lead_to(&addresses(&all[1..]));
    wait_status("DRAINING");
    server.lead_to(&addresses(&all));
    wait_status("ACTIVE");
}

#[test]
fn all_addresses_of_a_name_change_at_once_and_no_call_is_lost() {
    let place = Place::new();
    let all = members(&place, 4);
    let server = NameServer::start(&place, &addresses(&all[..2]), &[]);
    let control = Files::in_place(&place).control;
    let daemon = Daemon::start(&place, &config(&control, &[], &server.pool("media.test")));
    daemon.wait_members(2, 0);
    let traffic = Traffic::start(&control, 200, Duration::from_millis(300));
    for half in [&all[2..], &all[..2], &all[2..]] {
        server.lead_to(&addresses(half));
        wait::until_true("others serve", LONG, || names(&daemon) == names_of(half));
    }
    let report = traffic.stop();
    assert!(report.bad.is_empty(), "{} calls: {:?}", report.made, report.bad);
}

#[test]
fn a_reload_that_puts_a_name_in_the_place_of_members_loses_no_call() {
    let place = Place::new();
    let all = members(&place, 4);
    let server = NameServer::start(&place, &addresses(&all[2..]), &[]);
    let control = Files::in_place(&place).control;
    let written: Vec<Listed> = all[..2]
        .iter()
        .map(|member| Listed::udp(&member.control().ip().to_string(), &member.control().to_string()))
        .collect();
    let text = config(&control, &written, "");
    let daemon = Daemon::start(&place, &text);
    daemon.wait_members(2, 0);
    let traffic = Traffic::start(&control, 200, Duration::from_millis(300));
    let by_name = config(&control, &[], &server.pool("media.test"));
    for _ in 0..2 {
        fs::write(&daemon.files().config, &by_name).expect("the file");
        daemon.admin_ok("reload");
        wait::until_true("those of the name serve", LONG, || {
            names(&daemon) == names_of(&all[2..])
        });
        fs::write(&daemon.files().config, &text).expect("the file");
        daemon.admin_ok("reload");
        wait::until_true("those of the file serve", LONG, || {
            names(&daemon).iter().all(|name| !name.starts_with("media-")) && names(&daemon).len() == 2
        });
    }
    let report = traffic.stop();
    assert!(report.bad.is_empty(), "{} calls: {:?}", report.made, report.bad);
}

#[test]
fn addresses_beyond_the_bound_are_told_and_come_over_tcp() {
    let place = Place::new();
    let IpAddr::V4(own) = own_address() else {
        panic!("an address of IPv4")
    };
    let [_, second, ..] = own.octets();
    // Nobody is there.
    let ips: Vec<IpAddr> = (0..300_u16)
        .map(|n| [127, second, 252 + n.to_be_bytes()[0], n.to_be_bytes()[1]].into())
        .collect();
    let server = NameServer::start(&place, &ips, &[]);
    let control = Files::in_place(&place).control;
    let daemon = Daemon::start(&place, &config(&control, &[], &server.pool("media.test")));
    daemon.wait_members(0, 256);
    wait::until_true("it is told", LONG, || {
        daemon
            .log()
            .contains("has more than 256 addresses: the rest is left out")
    });
}
