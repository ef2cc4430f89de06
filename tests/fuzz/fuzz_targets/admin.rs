//! What administrators type, in whatever pieces it arrives: the same lines, and each is a command or refused.

#![no_main]

#[path = "../checks/admin.rs"]
mod admin;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| admin::check(bytes));
