//! The test bed itself: fakes are as the real thing, and calls work without a cluster.

use crate::support::conformance;
use crate::support::fake::FakeMember;
use crate::support::member;
use crate::support::place::Place;
use crate::support::real::RealMember;
use crate::support::sip::Sip;

#[test]
fn a_fake_member_answers_as_a_real_one_does() {
    let place = Place::new();
    let (real, fake) = (RealMember::start(&place, "r1"), FakeMember::start());
    let truth = conformance::transcript(&real.media(), |command| member::ask(real.control(), command));
    let ours = conformance::transcript(&fake.media(), |command| member::ask(fake.control(), command));
    for (truth, ours) in truth.iter().zip(&ours) {
        assert_eq!(truth, ours, "the real one, and the fake");
    }
    assert!(truth.len() > 50);
}

#[test]
fn calls_pass_through_kamailio_with_media_and_no_cluster() {
    let place = Place::new();
    let member = RealMember::start(&place, "r1");
    let sip = Sip::kamailio(&place, &format!("unix:{}", member.unix().display()));
    assert!(sip.call(3, 3).success());
    let relayed: u64 = member::ask(member.control(), "G npkts_relayed")
        .parse()
        .expect("a number");
    assert!(relayed > 0, "no media passed through the RTPproxy");
    assert_eq!(member.sessions(), 0);
}
