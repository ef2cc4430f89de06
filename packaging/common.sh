# Read by build-deb.sh, build-rpm.sh and stage.sh, from the top of the tree: what the packages have in common.

# The defaults that the packages' programs are built with (src/daemon/flags.rs).
export RTP_CLUSTER_CONFIG=/etc/rtp_cluster/rtp_cluster.xml
export RTP_CLUSTER_SOCKET=/run/rtp_cluster/rtp_cluster.sock
export RTP_CLUSTER_PID_FILE=/run/rtp_cluster/rtp_cluster.pid
# In a directory of its own: the daemon is not root when it reopens a rotated log.
export RTP_CLUSTER_LOG_FILE=/var/log/rtp_cluster/rtp_cluster.log
# The SIP server's user is in our group, which is to let it call and not administer.
export RTP_CLUSTER_ADMIN_MODE=0600
# Whoever is in that group may look: rtp_cluster_status is.
export RTP_CLUSTER_READONLY_SOCKET=/run/rtp_cluster/readonly.sock
export RTP_CLUSTER_READONLY_MODE=0660

umask 022
top=$(pwd)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# A later build of the same version.
revision=${RTP_CLUSTER_REVISION:-1}
packages=$(target_directory)/packages
mkdir -p "$packages"
# The same tree makes the same packages: dated by its last commit, or, without one, by its manifest.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date -r Cargo.toml +%s)}
export SOURCE_DATE_EPOCH

# Compiles the programs, once for all packages. Debian's own rustc is too old: it is the cargo on PATH that does it.
compile() {
    command -v cargo >/dev/null || fail "no cargo: install Rust from https://rustup.rs"
    # No path of this machine in messages of a panic.
    RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=$top=/usr/src/rtp_cluster --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/usr/src/cargo" \
        cargo build --locked --release --bins --target-dir "$packages/build" ||
        fail "could not compile"
}

# stage ROOT: puts into ROOT what Debian's package and the RPM have in common.
stage() {
    root=$1
    install -D -m 755 "$packages/build/release/rtp_cluster" "$root/usr/sbin/rtp_cluster"
    install -D -m 755 "$packages/build/release/rtp_cluster_status" "$root/usr/sbin/rtp_cluster_status"
    install -D -m 755 "$packages/build/release/rtp_cluster_client" "$root/usr/bin/rtp_cluster_client"
    install -D -m 644 -t "$root/usr/share/man/man8" man/rtp_cluster.8 man/rtp_cluster_client.8 \
        man/rtp_cluster_status.8
    install -D -m 644 -t "$root/usr/share/man/man5" man/rtp_cluster.xml.5
    install -D -m 640 packaging/etc/rtp_cluster.xml "$root/etc/rtp_cluster/rtp_cluster.xml"
    install -D -m 644 packaging/logrotate/rtp_cluster "$root/etc/logrotate.d/rtp_cluster"
    for program in rtp_cluster rtp_cluster_client rtp_cluster_status; do
        install -D -m 644 "packaging/completion/$program.bash" "$root/usr/share/bash-completion/completions/$program"
    done
    install -d -m 755 "$root/var/lib/rtp_cluster" "$root/var/log/rtp_cluster"
}
