//! The rim on the SIP server's side: control sockets, their clients, and the threads that serve them.

pub mod client;
pub mod cluster_thread;
pub mod connections;
pub mod fair;
pub mod listener;
pub mod slow_thread;
pub mod udp;
