//! Clients that misbehave: each gets what it deserves, and nobody else notices.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use crate::support::bed::{Bed, answer, create};
use crate::support::client::{self, Kept, PATIENCE};
use crate::support::daemon::{Daemon, cluster, config_of};
use crate::support::place::Place;
use crate::support::wait::{self, LONG};

/// Everything works as if nothing were: a call, from its first command to its last.
fn all_is_well(bed: &Bed) {
    for number in 0..20 {
        let call = format!("well-{number}");
        for command in [create(&call), answer(&call), format!("D {call} from to")] {
            let reply = bed.ask(&command);
            assert!(!reply.starts_with('E'), "{command} -> {reply}");
        }
    }
}

#[test]
fn a_byte_a_second_is_put_aside_and_ended_after_five_seconds() {
    let bed = Bed::of(2);
    let reply = thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let mut stream = client::connect(bed.control());
            stream
                .set_read_timeout(Some(Duration::from_secs(1)))
                .expect("a time-out can be set");
            let mut reply = [0; 256];
            for byte in "U call-id 127.0.0.1 4000 from".bytes() {
                // The other side may have closed by now: then reading tells.
                drop(stream.write_all(&[byte]));
                if let Ok(length) = stream.read(&mut reply) {
                    return String::from_utf8_lossy(&reply[..length]).into_owned();
                }
            }
            panic!("nobody has ended this");
        });
        bed.call("beside");
        assert!(!slow.is_finished(), "others are served while it goes on");
        all_is_well(&bed);
        slow.join().expect("the slow client was answered")
    });
    // Its whole command would have taken half a minute, and got a port.
    assert_eq!(reply, "E1\n");
    assert!(
        bed.members
            .iter()
            .all(|member| member.seen("U call-id").is_empty()),
        "half a command was sent on"
    );
}

#[test]
fn a_command_in_two_writes_is_one_command() {
    let bed = Bed::of(1);
    for cut in [1, 2, 9, 25] {
        let command = create(&format!("call-{cut}"));
        let mut stream = client::connect(bed.control());
        stream.write_all(&command.as_bytes()[..cut]).expect("open");
        // That the first part has been read alone cannot be seen from here; that it is answered by nothing can.
        stream
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("a time-out can be set");
        assert!(stream.read(&mut [0; 1]).is_err(), "answered after {cut} bytes");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a time-out can be set");
        stream.write_all(&command.as_bytes()[cut..]).expect("open");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("a reply");
        assert_eq!(bed.of_reply(reply.trim_end()).media(), bed.members[0].media());
    }
}

#[test]
fn half_a_command_and_a_hang_up_reach_no_member() {
    let bed = Bed::of(1);
    for _ in 0..50 {
        let mut stream = client::connect(bed.control());
        stream.write_all(b"U half 127.0.0.1").expect("open");
    }
    all_is_well(&bed);
    assert!(bed.members[0].seen("U half").is_empty());
}

#[test]
fn a_command_without_end_is_refused_at_its_limit() {
    let bed = Bed::of(1);
    for length in [9_000, 100_000] {
        let mut stream = client::connect(bed.control());
        // It may be closed before all is written.
        drop(stream.write_all(&[b"U ".as_slice(), &vec![b'a'; length]].concat()));
        let mut reply = Vec::new();
        // A close with bytes unread would be a reset, and the reply lost.
        stream.read_to_end(&mut reply).expect("closed in order");
        assert_eq!(client::escaped(&reply), "E5\\n");
    }
    assert!(bed.members[0].seen("U").is_empty());
    all_is_well(&bed);
}

#[test]
fn garbage_is_refused_and_reaches_no_member() {
    let bed = Bed::of(1);
    let mut random: u64 = 0x2545_f491_4f6c_dd1d;
    for number in 0_usize..300 {
        let mut bytes = vec![b"UuLlDdQqPpVvXxIiGg\0\n \xff"[number % 22]];
        for _ in 0..number % 70 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            bytes.push(random.to_le_bytes()[3] | 0x80);
        }
        bytes.push(b'\n');
        let reply = client::raw(bed.control(), &bytes);
        // What happens to be a whole command is one.
        let whole = [b"X\n".as_slice(), b"V\n", b"G\n"].contains(&bytes.as_slice());
        let fine = whole || reply.starts_with(b"E") && reply.ends_with(b"\n") && reply.is_ascii();
        assert!(fine, "{} -> {}", client::escaped(&bytes), client::escaped(&reply));
    }
    for (command, reply) in [
        (b"U a\0b 127.0.0.1 4000 from".as_slice(), "E5\n"),
        (b"\n", "E5\n"),
        (b" \n", "E5\n"),
        (b"\xff\xfe\xfd\n", "E0\n"),
    ] {
        let got = client::raw(bed.control(), command);
        assert_eq!(
            String::from_utf8_lossy(&got),
            reply,
            "{}",
            client::escaped(command)
        );
    }
    let harm =
        |letter: &str| bed.members[0].seen(letter).len() + bed.members[0].seen(&letter.to_lowercase()).len();
    assert_eq!(["U", "L", "D", "P"].map(harm), [0; 4]);
    all_is_well(&bed);
}

#[test]
fn a_second_command_in_one_write_is_not_smuggled_to_a_member() {
    let bed = Bed::of(1);
    bed.call("innocent");
    for end in ["\n", "\r\n"] {
        let text = format!("{}{end}X{end}D innocent from{end}", create("call"));
        let reply = String::from_utf8(client::raw(bed.control(), text.as_bytes())).expect("text");
        assert_eq!(
            bed.of_reply(reply.trim_end()).media(),
            bed.members[0].media(),
            "the first line is answered"
        );
    }
    assert!(bed.members[0].has("innocent"));
    assert!(bed.members[0].seen("X").is_empty());
    assert!(
        bed.members[0]
            .seen("U")
            .iter()
            .all(|seen| !seen.command.trim_end().contains(['\n', '\r']))
    );
}

#[test]
fn a_thousand_silent_connections_are_not_noticed() {
    let bed = Bed::of(2);
    let silent: Vec<UnixStream> = (0..1_000).map(|_| client::connect(bed.control())).collect();
    all_is_well(&bed);
    bed.daemon.admin_ok("ls C1");
    drop(silent);
    all_is_well(&bed);
}

#[test]
fn a_client_that_never_reads_holds_up_nobody() {
    let place = Place::new();
    let bed = Bed::of(1);
    let socket = place.path("kept.sock");
    let text = cluster("C2", "CUNIX", &socket.display().to_string(), &[], "");
    let daemon = Daemon::start(&place, &config_of(&[text]));
    let mut deaf = client::connect(&socket);
    deaf.set_write_timeout(Some(Duration::from_millis(500)))
        .expect("a time-out can be set");
    let flood = b"V\n".repeat(4_096);
    // Until the daemon closes, or takes no more from it.
    let written = (0..1_000).take_while(|_| deaf.write_all(&flood).is_ok()).count();
    assert!(
        written < 1_000,
        "eight megabytes of commands were taken from somebody who reads no reply"
    );
    let mut other = Kept::unix(&socket);
    assert_eq!(other.ask("V"), "20040107");
    drop(daemon);
    all_is_well(&bed);
}

#[test]
fn a_client_that_hangs_up_early_leaves_the_daemon_well() {
    let bed = Bed::of(2);
    for number in 0..200 {
        let mut stream = client::connect(bed.control());
        stream
            .write_all(create(&format!("gone-{number}")).as_bytes())
            .expect("open");
    }
    all_is_well(&bed);
    // Whatever has become of those, they can be ended.
    for number in 0..200 {
        bed.ask(&format!("D gone-{number} from"));
    }
    wait::until_true("no session left", LONG, || bed.sessions() == 0);
}
