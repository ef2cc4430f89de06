# story.sh WAY PYTHON PROGRAMS REPOSITORY DIRECTORY, with a network and processes of its own (see main.rs): two hosts with
# an rtp_cluster each, over three RTPproxies, and a Kamailio that reaches them as the files of packaging/ha say: by one
# address that keepalived moves (WAY is moving or hanging), or by a set of two sockets (two). Under calls the host in use
# dies, or its rtp_cluster hangs (hanging). Prints what became of the calls; everything is in DIRECTORY. The networks and
# all processes end with this one.
set -eu
way=$1 python=$2 programs=$3 repository=$4 dir=$5
case $way in
two) reached=two ;;
*) reached=moving ;;
esac
ha=$repository/packaging/ha sip=$repository/tests/integration/support/sip

# Calls, and how many begin in a second; each is changed four seconds after its begin, and ends two later.
calls=200 rate=10
# Calls on the RTPproxies when the host dies.
established=30

fail() {
    echo "$*" >&2
    exit 1
}

# until_true COMMAND...: waits for it, a minute at most.
until_true() {
    left=600
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ $left -gt 0 ] || fail "waited in vain: $*"
        sleep 0.1
    done
}

# start NAME COMMAND...: in the background, its words in NAME.log; its process is in $started.
start() {
    name=$1
    shift
    "$@" >"$dir/$name.log" 2>&1 </dev/null 3>&- &
    started=$!
}

# The machines: this one is the SIP server's, 10.0.0.1, with the switch between all of them.
is_apart() { [ "$(readlink "/proc/$started/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }
machine() { # machine NAME ADDRESS...
    start "$1" unshare -n sleep 600
    until_true is_apart
    eval "$1=$started"
    ip link add "to-$1" type veth peer name eth0 netns "$started"
    ip link set "to-$1" master switch up
    name=$1 at=$started
    shift
    nsenter -t "$at" -n ip link set lo up
    for address; do
        nsenter -t "$at" -n ip address add "$address/24" dev eth0
    done
    nsenter -t "$at" -n ip link set eth0 up
}
on() { # on MACHINE COMMAND...
    eval "at=\$$1"
    shift
    nsenter -t "$at" -n "$@"
}
ip link set lo up
ip link add switch type bridge
ip address add 10.0.0.1/24 dev switch
ip link set switch up
machine a 10.0.0.2
machine b 10.0.0.3
machine media 10.0.0.21 10.0.0.22 10.0.0.23

# The RTPproxies end when their standard input does: this pipe.
mkfifo "$dir/alive"
exec 3<>"$dir/alive"
for number in 1 2 3; do
    address=10.0.0.2$number
    nsenter -t "$media" -n "$python" "$repository/tests/integration/support/rtpproxy.py" $address udp:$address:22222 \
        <"$dir/alive" >"$dir/media$number.log" 2>&1 3>&- &
    until_true grep -q ready "$dir/media$number.log"
done

# statistic NAME: the sum over all RTPproxies.
cat >"$dir/statistic.py" <<'END'
import os, socket, sys
total = 0
for number in 1, 2, 3:
    control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    control.settimeout(1)
    control.connect(("10.0.0.2%d" % number, 22222))
    # A repeat runs nothing again.
    for _ in range(20):
        control.send(b"story%d.%d G %s" % (os.getpid(), number, sys.argv[1].encode()))
        try:
            total += int(control.recv(4096).split()[1])
            break
        except TimeoutError:
            pass
    else:
        sys.exit("no answer")
print(total)
END
statistic() { on media python3 "$dir/statistic.py" "$1"; }
sessions() { echo $(($(statistic nsess_created) - $(statistic nsess_destroyed))); }

# The two hosts, as the files say but for their paths.
client() { # client HOST COMMAND...
    host=$1
    shift
    "$programs/rtp_cluster_client" -s "$dir/$host.sock" "$@"
}
is_ready() { client "$1" -q ready main; }
has_address() { on "$1" ip -4 address show dev eth0 | grep -q 'inet 10\.0\.0\.10/'; }
# On a busy machine a call may well take long, and is not to be tried elsewhere for that.
patient='<failover attempts="1"/>'
# Nor is the address to move but for the death of the host.
lenient='s/-t 1 /-t 5 /; s/timeout 2/timeout 6/'
[ "$way" != hanging ] || lenient=
for host in a b; do
    case $host in
    a) own=10.0.0.2 other=10.0.0.3 ;;
    b) own=10.0.0.3 other=10.0.0.2 ;;
    esac
    if [ $reached = moving ]; then
        sed "s|<balancing|$patient&|" "$ha/rtp_cluster.xml" >"$dir/$host.xml"
        sed -n 's/ = /=/; /^[a-z]/p' "$ha/sysctl.conf" | while read -r setting; do
            # A machine without IPv6 has one of them alone.
            on "$host" sysctl -q -w "$setting" || :
        done
    else
        sed "s/10\.0\.0\.10:/$own:/; s|<balancing|$patient<no_members reply=\"silent\"/>&|" "$ha/rtp_cluster.xml" >"$dir/$host.xml"
    fi
    start $host-cluster nsenter -t "$(eval echo \$$host)" -n "$programs/rtp_cluster" -f -c "$dir/$host.xml" \
        -s "$dir/$host.sock" -P "$dir/$host.pid"
    eval "${host}_cluster=$started"
    until_true is_ready $host
    [ $reached = moving ] || continue
    sed -e "s|/usr/bin/rtp_cluster_client|$programs/rtp_cluster_client|; s|-s [^ ]*|-s $dir/$host.sock|" \
        -e "$lenient" \
        -e "s/script_user .*/script_user root/; /enable_script_security/d" \
        -e "s/unicast_src_ip .*/unicast_src_ip $own/; s/^        10\.0\.0\.3$/        $other/" \
        "$ha/keepalived.conf" >"$dir/$host.keepalived.conf"
    start $host-keepalived nsenter -t "$(eval echo \$$host)" -n keepalived -n -l -D -f "$dir/$host.keepalived.conf" \
        -p "$dir/$host.k.pid" -r "$dir/$host.kv.pid" -c "$dir/$host.kc.pid"
    eval "${host}_keepalived=$started"
    # The first one has the address, the second one stands by.
    [ $host = b ] || until_true has_address a
done

# The SIP server, a callee who echoes what it hears, and a caller.
{
    sed -e 's/127\.0\.0\.1/10.0.0.1/; s/@PORT@/5060/; s/@CALLEE@/5070/; s/^children=.*/children=16/' \
        -e "s|@MODULES@|$(dirname "$(find /usr/lib -path '*/kamailio/modules/rtpproxy.so' | head -n 1)")|" \
        -e "/rtpproxy_sock/{r $ha/kamailio-$reached.cfg
d}" "$sip/kamailio.cfg"
} >"$dir/kamailio.cfg"
start kamailio kamailio -f "$dir/kamailio.cfg" -DD -E -m 64 -M 8 -w "$dir" -P "$dir/kamailio.pid" -Y "$dir"
cp "$sip/callee.xml" "$dir/callee.xml"
python3 -c 'import sys; sys.stdout.buffer.write(b"\xd5" * 8000)' >"$dir/voice.raw"
sed "s|@VOICE@|$dir/voice.raw|; s|@PEER@|[next_url]|" "$sip/changing_caller.xml" >"$dir/caller.xml"
cd "$dir"
export TERM=dumb
start callee sipp -sf callee.xml -i 10.0.0.1 -p 5070 -mp 20000 -rtp_echo -nostdin -trace_err -error_file callee.errors
listens() { [ "$(ss -Hlun "sport = :$1" | wc -l)" -gt 0 ]; }
until_true listens 5060
until_true listens 5070
start caller sipp -sf caller.xml -i 10.0.0.1 -p 5080 -m $calls -r $rate -timeout 120 -timeout_error -nostdin \
    -trace_err -error_file caller.errors 10.0.0.1:5060
caller=$started

speak() { [ "$(sessions)" -ge $established ]; }
until_true speak
if [ "$way" = hanging ]; then
    kill -STOP "$a_cluster"
else
    # The cable is pulled, so that it takes leave of nobody; then all of it ends.
    ip link set to-a down
    kill -9 "$a_cluster" "${a_keepalived:-$a_cluster}"
fi
echo "established $(sessions)"
[ $reached = two ] || until_true has_address b
until_true client b -q ready main

status=0
wait "$caller" || status=$?
echo "caller $status"
none() { [ "$(sessions)" -eq 0 ]; }
until_true none
echo "created $(statistic nsess_created)"
echo "relayed $(statistic npkts_relayed)"
echo "stats"
client b stats main
