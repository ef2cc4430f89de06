//! A configuration file: it is read, or what is wrong with it is told.

use std::path::Path;

use rtp_cluster::config::parse;

pub fn check(bytes: &[u8]) {
    let _ = parse(Path::new("fuzz.xml"), bytes);
}
