//! The administrator's client: one command, a script, a prompt, or a live view. See `rtp_cluster_client(1)`.

fn main() -> std::process::ExitCode {
    rtp_cluster::console::main()
}
