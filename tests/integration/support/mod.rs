//! What the stories are told with: the daemon, members real and fake, clients, and waiting without sleeping.

pub mod daemon;
pub mod engine;
pub mod place;
pub mod process;
pub mod wait;
