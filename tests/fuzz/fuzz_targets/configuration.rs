//! A configuration file: it is read, or what is wrong with it is told.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use rtp_cluster::config::parse;

fuzz_target!(|bytes: &[u8]| {
    let _ = parse(Path::new("fuzz.xml"), bytes);
});
