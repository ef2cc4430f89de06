//! Stories of the running daemon: a module a topic, a fresh directory and fresh members a test.

#![allow(unreachable_pub, reason = "a program has no callers")]
#![expect(
    clippy::disallowed_methods,
    reason = "the tests measure with the clock, and are told apart by their names"
)]

#[cfg(test)]
mod admin;
#[cfg(test)]
mod admin_access;
#[cfg(test)]
mod admin_clusters;
#[cfg(test)]
mod admin_members;
#[cfg(test)]
mod admin_reload;
#[cfg(test)]
mod admin_stats;
#[cfg(test)]
mod behind_nat;
#[cfg(test)]
mod calls;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod console;
#[cfg(test)]
mod console_doctor;
#[cfg(test)]
mod console_firewall;
#[cfg(test)]
mod console_ready;
#[cfg(test)]
mod console_terminal;
#[cfg(test)]
mod console_test_call;
#[cfg(test)]
mod control_sockets;
#[cfg(test)]
mod discovery;
mod faults;
#[cfg(test)]
mod followed;
#[cfg(test)]
mod life;
#[cfg(test)]
mod life_log;
#[cfg(test)]
mod life_sockets;
#[cfg(test)]
mod life_takeover;
#[cfg(test)]
mod life_trouble;
#[cfg(test)]
mod links;
#[cfg(test)]
mod loops;
#[cfg(test)]
mod many_dispatchers;
#[cfg(test)]
mod monitoring;
#[cfg(test)]
mod notify;
#[cfg(test)]
mod notify_trouble;
#[cfg(test)]
mod operations;
#[cfg(test)]
mod outages;
#[cfg(test)]
mod real_sip;
#[cfg(test)]
mod reasons;
#[cfg(test)]
mod soak;
#[cfg(test)]
mod state;
#[cfg(test)]
mod status;
#[cfg(test)]
mod support;
#[cfg(test)]
mod the_test_bed;
#[cfg(test)]
mod under_systemd;
