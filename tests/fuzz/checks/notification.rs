//! What members tell the relay, and what SIP servers want to be told: no target leads outside the prefix, and what is
//! written for a member is found again.

use std::os::unix::ffi::OsStrExt;

use rtp_cluster::dispatch::rewrite::{Addressee, RelayTo, quote, split_notification, suffix, unquote};

const PREFIX: &str = "/run/sip.sock";

pub fn check(bytes: &[u8]) {
    for tcp in [false, true] {
        check_relay(bytes, tcp);
    }
}

fn check_relay(bytes: &[u8], tcp: bool) {
    if let Ok((Addressee::Path(path), rest)) = split_notification(bytes, PREFIX, tcp) {
        let path = path.as_os_str().as_bytes();
        let behind = path.strip_prefix(PREFIX.as_bytes()).expect("inside");
        assert!(!behind.contains(&b'/') && path.len() < 108 && !rest.is_empty());
    }
    let mut quoted = Vec::new();
    quote(bytes, &mut quoted);
    assert_eq!(unquote(&quoted).as_deref(), Some(bytes));
    let to = RelayTo {
        prefix: PREFIX,
        port: 1,
        tcp,
    };
    if let Some(suffix) = suffix(bytes, to) {
        let line = [&suffix[..], b" tag"].concat();
        match split_notification(&line, PREFIX, tcp) {
            Ok((_, rest)) => assert_eq!(rest, b"tag"),
            // Its path is too long for a socket.
            Err(_) => assert!(line.len() > 90),
        }
    }
}
