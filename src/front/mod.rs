//! The rim on the SIP server's side: control sockets, their clients, and the threads that serve them.

pub mod client;
pub mod cluster_thread;
pub mod connections;
pub mod fair;
mod gate;
pub mod handover;
pub mod kept;
pub mod order;
pub mod slow_thread;
mod stream;
pub mod udp;
mod unix;
