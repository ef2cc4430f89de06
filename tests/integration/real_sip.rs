//! The whole way: sipp calls through Kamailio, whose media goes through the cluster and a real RTPproxy.

use crate::support::daemon::{Daemon, Files, Listed, config};
use crate::support::member;
use crate::support::place::Place;
use crate::support::real::RealMember;
use crate::support::sip::Sip;
use crate::support::wait::{self, LONG};

#[test]
fn calls_of_kamailio_have_media_through_the_members_and_leave_nothing_behind() {
    let place = Place::new();
    let members: Vec<RealMember> = (1..=2)
        .map(|n| RealMember::start(&place, &format!("r{n}")))
        .collect();
    let listed: Vec<Listed> = members
        .iter()
        .enumerate()
        .map(|(n, m)| Listed::udp(&format!("R{}", n + 1), &m.control().to_string()))
        .collect();
    let daemon = Daemon::start(&place, &config(&Files::in_place(&place).control, &listed, ""));
    daemon.wait_members(2, 0);
    let sip = Sip::start(&place, &daemon.files().control);
    assert!(
        sip.call(20, 10).success(),
        "not every call succeeded; see {}",
        place.dir().display()
    );
    let statistic = |m: &RealMember, name: &str| -> u64 {
        member::ask(m.control(), &format!("G {name}"))
            .parse()
            .expect("a number")
    };
    let created: Vec<u64> = members.iter().map(|m| statistic(m, "nsess_created")).collect();
    assert_eq!(created.iter().sum::<u64>(), 20, "one session a call");
    for (member, created) in members.iter().zip(created) {
        // The caller speaks 50 packets a call, and hears each again.
        let relayed = statistic(member, "npkts_relayed");
        assert!(
            relayed >= created * 50,
            "{created} sessions relayed {relayed} packets"
        );
        wait::until_true("no session after the calls", LONG, || member.sessions() == 0);
    }
}
