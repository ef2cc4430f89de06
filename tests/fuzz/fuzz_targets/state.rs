//! What a file of the state directory holds, whoever wrote it.

#![no_main]

#[path = "../checks/state.rs"]
mod state;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| state::check(bytes));
