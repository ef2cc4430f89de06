//! Whether members answer: `watch.rs` decides and `probes.rs` knows what is under way (both pure), `target.rs` asks one
//! RTPproxy, `health_thread.rs` asks them all and tells the clusters.

pub mod health_thread;
pub mod news;
pub mod probes;
pub mod target;
pub mod watch;
