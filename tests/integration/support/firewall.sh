# firewall.sh PYTHON RTPPROXY_PY DAEMON CLIENT DIRECTORY, in a network of its own (`unshare -rn`): an RTPproxy in a second
# one, and between the two a firewall that lets commands through and drops RTP, once on its way there, once on its way
# back. DIRECTORY has the configuration; prints what the client says to each.
set -eu
python=$1 rtpproxy=$2 daemon=$3 client=$4 directory=$5

fail() {
    echo "$*" >&2
    exit 1
}

# until COMMAND...: waits for it, 15 s at most.
until_true() {
    left=300
    while ! "$@"; do
        left=$((left - 1))
        [ $left -gt 0 ] || fail "waited in vain: $*"
        sleep 0.05
    done
}

unshare -n sleep 600 &
other=$!
trap 'kill $other ${proxy:-} ${served:-} 2>/dev/null' EXIT
is_apart() { [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/self/ns/net)" ]; }
until_true is_apart
there() { nsenter -t $other -n "$@"; }

ip link set lo up
ip link add near type veth peer name far netns $other
ip address add 10.9.0.1/24 dev near
ip link set near up
there ip link set lo up
there ip address add 10.9.0.2/24 dev far
there ip link set far up
# What is for the machine itself is looked up first; the rules of the firewall are to come before.
for side in '' there; do
    $side ip rule add pref 100 lookup local
    $side ip rule delete pref 0
done

mkfifo "$directory/stdin"
nsenter -t $other -n "$python" "$rtpproxy" 10.9.0.2 udp:10.9.0.2:22222 <"$directory/stdin" >"$directory/ready" 2>/dev/null &
proxy=$!
exec 9>"$directory/stdin"
until_true grep -q ready "$directory/ready"
"$daemon" -f -c "$directory/c.xml" -s "$directory/admin.sock" -P "$directory/pid" 2>"$directory/log" &
served=$!
is_online() { "$client" -s "$directory/admin.sock" ls 2>/dev/null | grep -q 'active members = 1'; }
until_true is_online

try() {
    echo "[$1]"
    "$client" -s "$directory/admin.sock" test main R1 || echo "exit $?"
}
try open
there ip rule add pref 10 iif far ipproto udp dport 35000-54998 blackhole
try there
there ip rule delete pref 10
ip rule add pref 10 iif near ipproto udp sport 35000-54998 blackhole
try back
