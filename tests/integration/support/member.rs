//! What real and fake members have in common: an address of 127.0.0.0/8 of their own, for control and for media.
//! It is in every reply that names a port, so that a test sees who has answered.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::wait::{self, LONG};

/// The control port of every member; the addresses differ.
pub const CONTROL_PORT: u16 = 22222;

/// How long a reply is waited for: one who stood still may have lost what came meanwhile.
const AGAIN: Duration = Duration::from_secs(2);

/// An address that no other test uses, also not one of another test program running now.
pub fn own_address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let byte = |n: u32| u8::try_from(n % 250).expect("below 250") + 1;
    let pid = process::id();
    Ipv4Addr::new(127, byte(pid), byte(pid / 250 + number / 250 * 7), byte(number)).into()
}

/// Asks a member over UDP, past the cluster, as often as it takes, and gives its reply without cookie and line end.
pub fn ask(member: SocketAddr, command: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    socket.connect(member).expect("a member has an address");
    socket
        .set_read_timeout(Some(AGAIN))
        .expect("a time-out can be set");
    // Members keep replies by cookie alone, and the port may have been another test's a moment ago.
    let cookie = format!("test{}.{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let mut reply = vec![0; 65_536];
    wait::until(format!("{member}: {command}"), LONG, || {
        socket.send(format!("{cookie} {command}").as_bytes()).ok()?;
        loop {
            let length = socket.recv(&mut reply).ok()?;
            let text = String::from_utf8_lossy(&reply[..length]);
            if let Some(text) = text.strip_prefix(&format!("{cookie} ")) {
                return Some(text.trim_end().to_owned());
            }
        }
    })
}

/// Sessions that a member counts, by its own word.
pub fn active_sessions(member: SocketAddr) -> u64 {
    let reply = ask(member, "Ib");
    let count = reply
        .lines()
        .find_map(|line| line.strip_prefix("active sessions: "));
    count
        .and_then(|n| n.parse().ok())
        .unwrap_or_else(|| panic!("{member}: {reply:?}"))
}
