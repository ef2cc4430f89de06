//! The status page and metrics of a running daemon, over HTTP. See `rtp_cluster_status(8)`.

fn main() -> std::process::ExitCode {
    rtp_cluster::status::main()
}
