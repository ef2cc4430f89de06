//! What a kept connection brings, in whatever pieces it arrives: the same lines, none of them longer than a command.

#![no_main]

#[path = "../checks/kept.rs"]
mod kept;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kept::check(bytes));
