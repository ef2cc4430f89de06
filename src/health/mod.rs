//! Whether members answer: `watch.rs` decides (pure), `target.rs` asks one RTPproxy, `health_thread.rs` asks them all and
//! tells the clusters.

pub mod health_thread;
pub mod target;
pub mod watch;
