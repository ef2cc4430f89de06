//! `rtp_cluster_client test` through a real firewall, in a network of its own: commands pass, RTP does not.

use std::process::Command;

use crate::console::{CLIENT, out, said};
use crate::support::place::Place;
use crate::support::real;

const SCRIPT: &str = include_str!("support/firewall.sh");
const RTPPROXY: &str = include_str!("support/rtpproxy.py");

#[test]
fn a_firewall_that_drops_rtp_is_told_by_the_side_on_which_it_does() {
    // As with IPv6: what the machine lets nobody make is not tested there.
    let may = Command::new("unshare").args(["-rn", "true"]).status();
    if !may.is_ok_and(|status| status.success()) {
        return;
    }
    let place = Place::new();
    let directory = place.dir().display();
    place.write(
        "c.xml",
        format!(
            "<rtp_cluster_config><rtp_cluster><name>main</name><protocol>UNIX</protocol>\
             <address>{directory}/main.sock</address><rtpproxy><name>R1</name><protocol>UDP</protocol>\
             <address>10.9.0.2:22222</address><weight>1</weight><capacity>9</capacity></rtpproxy>\
             </rtp_cluster></rtp_cluster_config>"
        ),
    );
    let output = Command::new("unshare")
        .args(["-rn", "sh"])
        .arg(place.write("firewall.sh", SCRIPT))
        .arg(real::python())
        .arg(place.write("rtpproxy.py", RTPPROXY))
        .args([env!("CARGO_BIN_EXE_rtp_cluster"), CLIENT])
        .arg(place.dir())
        .output()
        .expect("a network of its own");
    let text = out(&output);
    assert!(output.status.success(), "{text}{}", said(&output));
    let part = |name: &str| {
        let (_, rest) = text
            .split_once(&format!("[{name}]\n"))
            .unwrap_or_else(|| panic!("{name}: {text}"));
        rest.split("\n[").next().unwrap_or_default().trim_end().to_owned()
    };
    assert!(part("open").ends_with("\nOK"), "{text}");
    let there = part("there");
    assert!(
        there.contains("no packet reached it: a firewall drops UDP from 10.9.0.1 to its ports at 10.9.0.2"),
        "{text}"
    );
    let back = part("back");
    assert!(
        back.contains(
            "sent 100 on, which do not arrive: a firewall between drops UDP from 10.9.0.2 to 10.9.0.1"
        ),
        "{text}"
    );
    for part in [there, back] {
        assert!(part.ends_with("\nexit 1"), "{text}");
    }
}
