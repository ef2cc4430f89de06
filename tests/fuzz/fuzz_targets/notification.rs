//! What members tell the relay, and what SIP servers want to be told: no target leads outside the prefix, and what is

#![no_main]

#[path = "../checks/notification.rs"]
mod notification;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| notification::check(bytes));
