//! What the stories are told with: the daemon, members real and fake, clients, and waiting without sleeping.

pub mod bed;
pub mod client;
pub mod conformance;
pub mod daemon;
pub mod engine;
pub mod fake;
pub mod forms;
pub mod manager;
pub mod member;
pub mod party;
pub mod place;
pub mod process;
pub mod real;
pub mod sip;
pub mod traffic;
pub mod wait;
pub mod web;
pub mod wire;
