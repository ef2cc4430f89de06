//! What members answer, whatever they were asked.

use rtp_cluster::protocol::command::Verb;
use rtp_cluster::protocol::cookie::Cookie;
use rtp_cluster::protocol::reply::{SessionCounts, Statistics, judge, parse_info, port, write_info};

pub fn check(bytes: &[u8]) {
    for verb in Verb::ALL {
        let _ = judge(verb, bytes);
    }
    let _ = port(bytes);
    if let Some(counts) = parse_info(bytes) {
        let mut out = Vec::new();
        write_info(&counts, &mut out);
        let again = parse_info(&out).expect("what we write can be read");
        // A load is written with six places.
        let plain = |counts: SessionCounts| SessionCounts { load: None, ..counts };
        assert_eq!(plain(again), plain(counts));
    }
    if let Some(statistics) = Statistics::parse(bytes) {
        let mut out = Vec::new();
        statistics.write(&mut out);
        assert!(Statistics::parse(&out).is_some());
    }
    if let Some(cookie) = Cookie::parse(bytes) {
        let mut out = Vec::new();
        cookie.write(&mut out);
        assert_eq!(out, bytes);
    }
}
