//! Whether members answer: `watch.rs` decides (pure), `health_thread.rs` asks.

pub mod health_thread;
pub mod watch;
