//! The files of the daemon's sockets: removed by others, and made again.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::process::Signal;

use crate::support::bed::Bed;
use crate::support::client;
use crate::support::wait::{self, LONG};

#[test]
fn a_reload_makes_sockets_again_whose_files_were_removed() {
    let mut bed = Bed::with(1, "", &["--socket-mode", "0600"]);
    let files = bed.daemon.files().clone();
    // It may not have been let in yet when another socket takes the place of the one it came by.
    bed.daemon.stop();
    let mut prompt = BufReader::new(UnixStream::connect(&files.admin).expect("the admin socket"));
    fs::remove_file(&files.control).expect("it is there");
    fs::remove_file(&files.admin).expect("it is there");
    bed.daemon.signal(Signal::HUP);
    bed.daemon.signal(Signal::CONT);
    wait::until_true("both are back", LONG, || {
        files.control.exists() && UnixStream::connect(&files.admin).is_ok()
    });
    assert_eq!(client::ask(&files.control, "V"), "20040107");
    assert_eq!(bed.call("after").media(), bed.members[0].media());
    bed.daemon.admin_ok("ls");
    // Who was connected stays so.
    prompt.get_mut().write_all(b"version\n").expect("it is open");
    let mut line = String::new();
    prompt.read_line(&mut line).expect("a reply");
    assert!(line.starts_with("rtp_cluster"), "{line:?}");

    // Again by a command, the control socket alone; a reload with all in place changes nothing.
    fs::remove_file(&files.control).expect("it is there");
    bed.daemon.admin_ok("reload");
    assert_eq!(client::ask(&files.control, "V"), "20040107");
    let made = bed.daemon.log().matches("making it again").count();
    bed.daemon.admin_ok("reload");
    assert_eq!(bed.daemon.log().matches("making it again").count(), made);

    bed.daemon.signal(Signal::TERM);
    assert_eq!(bed.daemon.wait_end(LONG).code(), Some(0));
    assert!(!files.control.exists() && !files.admin.exists());
}

#[test]
fn a_reload_takes_no_socket_from_one_who_listens_in_its_place() {
    let bed = Bed::of(1);
    let files = bed.daemon.files();
    fs::remove_file(&files.control).expect("it is there");
    let other = UnixListener::bind(&files.control).expect("another's");
    let said = bed.daemon.admin("reload");
    assert!(
        said.contains("already listens on this socket") && said.contains("ERROR"),
        "{said}"
    );
    drop(other);
    bed.daemon.admin_ok("reload");
    assert_eq!(client::ask(&files.control, "V"), "20040107");
}
