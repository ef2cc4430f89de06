//! The daemon.

/// Calls the library and exits with its status.
fn main() -> std::process::ExitCode {
    rtp_cluster::daemon::main::<rtp_cluster::server::Server>()
}
