//! What clients send: any bytes are a command, may become one, or are refused, and what is rewritten for a member

#![no_main]

#[path = "../checks/command.rs"]
mod command;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| command::check(bytes));
