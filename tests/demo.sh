#!/bin/sh
# sh tests/demo.sh [--once]: a cluster of three real RTPproxies on this machine, a call through it, and then
# yours to play with until Ctrl-C. With --once it stops by itself.
set -eu
cd "$(dirname "$0")/.."
. tests/need.sh

case "${1-}" in
'') once=no ;;
--once) once=yes ;;
*)
    echo "usage: sh tests/demo.sh [--once]" >&2
    exit 64
    ;;
esac

command -v cargo >/dev/null || fail "no cargo: install Rust from https://rustup.rs"
want "gcc libc6-dev" can_link
want socat command -v socat
want python3-venv python3 -c 'import venv, ensurepip'
install_missing
target=$(target_directory)
mkdir -p "$target"
install_rtpproxy "$target"
[ -x "$target/release/rtp_cluster" ] || echo "building rtp_cluster, which takes a few minutes the first time"
cargo build --locked --release

bin=$target/release
dir=$(mktemp -d "${TMPDIR:-/tmp}/rtp_cluster.XXXXXX")
children=

# However this ends, nothing of it stays.
clean() {
    trap - EXIT INT TERM HUP
    for child in $children; do
        kill "$child" 2>/dev/null || :
        # One that was stopped for the sake of an outage hears nothing else before.
        kill -CONT "$child" 2>/dev/null || :
    done
    for child in $children; do
        wait "$child" 2>/dev/null || :
    done
    rm -rf "$dir"
}
trap clean EXIT
trap 'exit 0' INT TERM HUP

step() {
    printf '\n== %s\n' "$*"
}

client() {
    echo "\$ rtp_cluster_client -s $dir/admin.sock $*"
    "$bin/rtp_cluster_client" -s "$dir/admin.sock" "$@"
}

step "Three RTPproxies, each with a loopback address of its own"
# The proxies end when their standard input does: this pipe, which only this shell holds open for writing.
mkfifo "$dir/alive"
exec 3<>"$dir/alive"
members=
for number in 1 2 3; do
    address=127.$(($$ % 250 + 1)).$(($$ / 250 % 250 + 1)).$number
    "$target/rtpproxy/bin/python" tests/integration/support/rtpproxy.py "$address" "udp:$address:22222" \
        <"$dir/alive" >"$dir/rtpproxy$number.log" 2>&1 3>&- &
    children="$children $!"
    [ "$number" -gt 1 ] || first=$!
    members="$members
    <rtpproxy>
      <name>RTPPROXY$number</name>
      <protocol>UDP</protocol>
      <address>$address:22222</address>
      <weight>100</weight>
      <capacity>2500</capacity>
    </rtpproxy>"
    echo "RTPPROXY$number: udp:$address:22222"
done

step "The cluster in front of them"
cat >"$dir/rtp_cluster.xml" <<END
<rtp_cluster_config>
  <rtp_cluster>
    <name>Demo</name>
    <protocol>UNIX</protocol>
    <address>$dir/demo.sock</address>$members
  </rtp_cluster>
</rtp_cluster_config>
END
echo "\$ rtp_cluster -f -c $dir/rtp_cluster.xml -s $dir/admin.sock -P $dir/pid"
"$bin/rtp_cluster" -f -c "$dir/rtp_cluster.xml" -s "$dir/admin.sock" -P "$dir/pid" 2>"$dir/log" 3>&- &
daemon=$!
children="$daemon $children"
tries=0
until "$bin/rtp_cluster_client" -s "$dir/admin.sock" version >"$dir/version" 2>&1; do
    tries=$((tries + 1))
    if [ "$tries" -gt 100 ] || ! kill -0 "$daemon" 2>/dev/null; then
        cat "$dir/version" "$dir/log" >&2
        fail "the cluster did not start"
    fi
    sleep 0.1
done
for number in 1 2 3; do
    client wait Demo "RTPPROXY$number" online -t 15 || {
        cat "$dir/rtpproxy$number.log" "$dir/log" >&2
        fail "RTPPROXY$number did not come online"
    }
done

step "A call through the cluster, as a SIP server makes it"
"$target/rtpproxy/bin/python" tests/demo.py "$dir/demo.sock" || {
    cat "$dir/log" >&2
    fail "the call did not work"
}

step "What the administrator sees"
client ls
client ls Demo

if [ "$once" = no ]; then
    step "It is yours, until Ctrl-C"
    cat <<END
a prompt     $bin/rtp_cluster_client -s $dir/admin.sock
             then: help, ls Demo, modify Demo suspend RTPPROXY1, quit
a live view  $bin/rtp_cluster_client -s $dir/admin.sock top
a command    printf 'U my-call 192.0.2.1 4000 my-tag' | socat - UNIX-CONNECT:$dir/demo.sock
Kamailio     modparam("rtpproxy", "rtpproxy_sock", "unix:$dir/demo.sock")
the log      tail -f $dir/log
an outage    kill -STOP $first silences RTPPROXY1, kill -CONT $first brings it back
END
    wait "$daemon" || fail "the cluster has ended: $(tail -n 3 "$dir/log")"
fi
