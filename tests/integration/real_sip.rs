//! The whole way: sipp calls through a Kamailio or a Sippy B2BUA, whose media goes through the cluster and real
//! RTPproxies, over each kind of control socket that the server knows.

use std::process::{Command, Stdio};

use crate::support::daemon::{Daemon, Listed, cluster, config_of};
use crate::support::member::{self, CONTROL_PORT, own_address};
use crate::support::place::Place;
use crate::support::real::{RealMember, free_ipv6, python};
use crate::support::sip::Sip;
use crate::support::wait::{self, LONG};
use crate::support::wire::{At, Transport};

const SIPPY_CLIENT: &str = include_str!("support/sippy_client.py");

/// RTPproxies behind a cluster whose control socket is of some kind.
#[derive(Debug)]
struct Field {
    members: Vec<RealMember>,
    daemon: Daemon,
    control: Transport,
    at: At,
    place: Place,
}

impl Field {
    /// With two RTPproxies. `None` where the machine has no IPv6 and would need it.
    fn over(control: Transport) -> Option<Self> {
        let place = Place::new();
        let at = match control {
            Transport::Unix | Transport::Cunix => At::Path(place.path("cluster.sock")),
            Transport::Udp | Transport::Tcp => At::Net((own_address(), CONTROL_PORT).into()),
            Transport::Udp6 | Transport::Tcp6 => At::Net(free_ipv6()?),
        };
        let members: Vec<RealMember> = (1..=2)
            .map(|n| RealMember::start(&place, &format!("r{n}")))
            .collect();
        let listed: Vec<Listed> = members
            .iter()
            .enumerate()
            .map(|(n, m)| Listed::udp(&format!("R{}", n + 1), &m.control().to_string()))
            .collect();
        // On a busy machine a call may well take long, and is not to be tried elsewhere for that.
        let patient = "<failover attempts=\"1\"/>";
        let text = cluster("C1", control.name(), &at.to_string(), &listed, patient);
        let daemon = Daemon::start(&place, &config_of(&[text]));
        daemon.wait_members(2, 0);
        Some(Self {
            members,
            daemon,
            control,
            at,
            place,
        })
    }

    /// The control socket as SIP servers write it.
    fn written(&self) -> String {
        format!("{}:{}", self.control.name().to_lowercase(), self.at)
    }

    /// The same for Kamailio, which takes no brackets around an address.
    fn written_plainly(&self) -> String {
        self.written().replace(['[', ']'], "")
    }

    fn statistic(&self, member: usize, name: &str) -> u64 {
        let reply = member::ask(self.members[member].control(), &format!("G {name}"));
        reply.parse().expect("a number")
    }

    /// Each of this many calls has had a session, spoken, heard, and left nothing.
    fn has_served(&self, calls: u64) {
        let created: Vec<u64> = (0..self.members.len())
            .map(|n| self.statistic(n, "nsess_created"))
            .collect();
        assert_eq!(created.iter().sum::<u64>(), calls, "one session a call");
        for (number, created) in created.into_iter().enumerate() {
            // The caller speaks 50 packets a call, and hears each again; the last may be under way at the end.
            let relayed = self.statistic(number, "npkts_relayed");
            assert!(
                relayed >= created * 80,
                "{created} sessions relayed {relayed} packets"
            );
            wait::until_true("no session after the calls", LONG, || {
                self.members[number].sessions() == 0
            });
        }
        assert!(!self.daemon.log().contains("panicked"), "{}", self.daemon.log());
    }
}

fn kamailio_calls_over(control: Transport) {
    let Some(field) = Field::over(control) else { return };
    let sip = Sip::kamailio(&field.place, &field.written_plainly());
    assert!(
        sip.call(10, 5).success(),
        "not every call succeeded; see {}",
        field.place.dir().display()
    );
    field.has_served(10);
}

#[test]
fn calls_of_kamailio_have_media_through_the_members_and_leave_nothing_behind() {
    kamailio_calls_over(Transport::Unix);
}

#[test]
fn calls_of_kamailio_over_udp_do_too() {
    kamailio_calls_over(Transport::Udp);
}

#[test]
fn calls_of_kamailio_over_udp6_do_too() {
    kamailio_calls_over(Transport::Udp6);
}

#[test]
fn both_streams_of_a_call_of_kamailio_are_on_one_member() {
    const CALLS: u32 = 12;
    let field = Field::over(Transport::Unix).expect("no IPv6 is needed");
    let sip = Sip::kamailio_with_pictures(&field.place, &field.written());
    let mut calls = sip.changing_calls(CALLS, 12);
    wait::until_true("all sessions", LONG, || {
        let created = (0..2).map(|n| field.statistic(n, "nsess_created"));
        created.sum::<u64>() == u64::from(2 * CALLS)
    });
    // Calls by member, as they are bound, and sessions by member, as they say themselves.
    let listed = field.daemon.admin_ok("ls -v C1");
    let bound: Vec<u64> = listed
        .lines()
        .filter_map(|line| line.trim().strip_prefix("bound sessions = "))
        .map(|count| count.parse().expect("a number"))
        .collect();
    assert_eq!(bound.iter().sum::<u64>(), u64::from(CALLS), "{listed}");
    assert!(
        calls.wait_end(LONG).success(),
        "not every call succeeded; see {}",
        field.place.dir().display()
    );
    let created: Vec<u64> = (0..2).map(|n| field.statistic(n, "nsess_created")).collect();
    assert!(
        created.iter().all(|sessions| sessions % 2 == 0),
        "{created:?}: {listed}"
    );
    assert_eq!(
        created.iter().sum::<u64>(),
        u64::from(2 * CALLS),
        "the change made none"
    );
    wait::until_true("no session after the calls", LONG, || {
        field.members.iter().all(|member| member.sessions() == 0)
    });
}

fn b2bua_calls_over(control: Transport) {
    let Some(field) = Field::over(control) else { return };
    let sip = Sip::b2bua(&field.place, &field.written());
    assert!(
        sip.call(10, 5).success(),
        "not every call succeeded; see {}",
        field.place.dir().display()
    );
    field.has_served(10);
}

#[test]
fn calls_of_a_b2bua_have_media_through_the_members_and_leave_nothing_behind() {
    b2bua_calls_over(Transport::Unix);
}

#[test]
fn calls_of_a_b2bua_over_udp_do_too() {
    b2bua_calls_over(Transport::Udp);
}

/// The client of the B2BUA alone, with as many calls one after the other.
fn sippy_calls_over(control: Transport) {
    const CALLS: u64 = 25;
    let Some(field) = Field::over(control) else { return };
    let mut command = Command::new(python());
    command.args(["-c", SIPPY_CLIENT, &field.written(), &CALLS.to_string()]);
    let output = command.stdin(Stdio::null()).output().expect("Python can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", control.name());
    let created: u64 = (0..2).map(|n| field.statistic(n, "nsess_created")).sum();
    assert_eq!(created, CALLS, "{}: one session a call", control.name());
    assert!(field.members.iter().all(|member| member.sessions() == 0));
}

#[test]
fn the_client_of_the_b2bua_makes_changes_and_ends_calls_over_each_of_its_sockets() {
    for control in Transport::ALL {
        sippy_calls_over(control);
    }
}

/// Calls speak, one member dies with all that it has, and the callers send their re-INVITEs: all of them have sound
/// again, in both directions, through the member that is left.
fn calls_outlive_their_member(field: &mut Field, sip: &Sip) {
    const CALLS: u64 = 4;
    let mut calls = sip.changing_calls(4, 20);
    let sessions = |field: &Field| -> u64 { field.members.iter().map(RealMember::sessions).sum() };
    let dies = wait::until("a member with calls that speak", LONG, || {
        let speaks =
            |n: &usize| field.statistic(*n, "npkts_relayed") > 30 * field.members[*n].sessions().max(1);
        (0..2).find(speaks).filter(|_| sessions(field) == CALLS)
    });
    let (lost, lives) = (field.members[dies].sessions(), 1 - dies);
    assert!(lost > 0);
    field.members[dies].kill();
    field.daemon.wait_members(1, 1);
    // The re-INVITEs come; until then nobody has spoken for a while.
    wait::until_true("every call has its home", LONG, || {
        field.members[lives].sessions() == CALLS
    });
    let before = field.statistic(lives, "npkts_relayed");
    assert!(
        calls.wait_end(LONG).success(),
        "not every call succeeded; see {}",
        field.place.dir().display()
    );
    // 50 packets from each caller, and back.
    let relayed = field.statistic(lives, "npkts_relayed") - before;
    assert!(relayed >= CALLS * 80, "{relayed} packets of {CALLS} calls");
    wait::until_true("no session after the calls", LONG, || {
        field.members[lives].sessions() == 0
    });
}

#[test]
fn a_reinvite_through_kamailio_gives_calls_of_a_dead_member_a_new_home_and_sound() {
    let mut field = Field::over(Transport::Unix).expect("no IPv6 is needed");
    let sip = Sip::kamailio(&field.place, &field.written());
    calls_outlive_their_member(&mut field, &sip);
}

#[test]
fn a_reinvite_through_a_b2bua_does_too() {
    let mut field = Field::over(Transport::Udp).expect("no IPv6 is needed");
    let sip = Sip::b2bua(&field.place, &field.written());
    calls_outlive_their_member(&mut field, &sip);
}
