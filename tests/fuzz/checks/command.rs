//! What clients send: any bytes are a command, may become one, or are refused, and what is rewritten for a member
//! reads as the same command.

use core::net::{IpAddr, Ipv4Addr};

use rtp_cluster::dispatch::rewrite::{self, Addresses, NotifyPlan, Towards};
use rtp_cluster::protocol::command::parse;
use rtp_cluster::protocol::cookie;
use rtp_cluster::protocol::framing::{First, Line, first, line, unfold};

pub fn check(bytes: &[u8]) {
    if let First::Command(taken) = first(bytes) {
        assert!((1..=bytes.len()).contains(&taken));
    }
    if let Line::Whole(taken) = line(bytes) {
        assert_eq!(bytes.get(taken - 1), Some(&b'\n'));
    }
    let mut datagram = bytes.to_vec();
    unfold(&mut datagram);
    if let Some((_, behind)) = cookie::split(&datagram) {
        let _ = parse(behind);
    }
    let Ok(command) = parse(bytes) else { return };
    assert!(!command.text.contains(&b'\n') && !command.text.contains(&0));
    let written = |lan, notify| {
        let mut out = Vec::new();
        let towards = Towards {
            lan,
            notify,
            tags: None,
        };
        rewrite::command(&command, &towards, &mut out);
        out
    };
    assert_eq!(written(Addresses::default(), NotifyPlan::Keep), command.text);
    let lan = [IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))].into_iter().collect();
    let text = written(lan, NotifyPlan::Drop);
    // It may have become too long, and nothing else.
    if let Ok(again) = parse(&text) {
        assert_eq!(
            (
                again.verb,
                again.call_id,
                again.from_tag,
                again.to_tag,
                again.weak,
                again.notify
            ),
            (
                command.verb,
                command.call_id,
                command.from_tag,
                command.to_tag,
                command.weak,
                None
            )
        );
    } else {
        assert!(text.len() > command.text.len());
    }
}
