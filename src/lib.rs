//! rtp_cluster

pub mod admin;
pub mod cluster;
pub mod config;
pub mod daemon;
pub mod dispatch;
pub mod front;
pub mod health;
pub mod link;
pub mod protocol;
pub mod server;
pub mod sync;
