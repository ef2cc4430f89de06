"""Calls by the RTPproxy client of the Sippy B2BUA: sippy_client.py SOCKET CALLS

Each is made, answered, changed from both sides, asked for and ended; what is not as it should be ends this with an
AssertionError.
"""
import sys

from sippy.Core.EventDispatcher import ED2
from sippy.Rtp_proxy.Session.update import update_params
from sippy.Rtp_proxy.client import Rtp_proxy_client
from sippy.Rtp_proxy.session import Rtp_proxy_session
from sippy.Time.Timeout import Timeout


def outcome(start):
    """Calls start with a callback, and gives what the callback got."""
    got = []

    def done(result, *_, ex=None):
        got.append(result)
        ED2.breakLoop()

    start(done)
    ED2.loop(8.0)
    assert got, "no answer"
    return got[0]


def update(session, side, port):
    """The address and the port that the other side sends to."""
    def start(done):
        params = update_params()
        params.rtpps = session
        params.remote_ip, params.remote_port = "127.0.0.1", port
        params.result_callback = done
        side.update(params)

    result = outcome(start)
    assert result, "no session"
    return result.rtpproxy_address, result.rtpproxy_port


def said(client, command):
    return outcome(lambda done: client.send_command(command, done))


client = Rtp_proxy_client({"_sip_address": "127.0.0.1"}, spath=sys.argv[1])
look = Timeout(lambda: client.online and ED2.breakLoop(), 0.05, -1)
ED2.loop(8.0)
look.cancel()
assert client.online, "it takes the cluster for dead"
# What a cluster of RTPproxies of today can do.
assert client.copy_supported and client.stat_supported and client.sbind_supported and client.wdnt_supported

for number in range(int(sys.argv[2])):
    session = Rtp_proxy_session({"rtp_proxy_client": client}, call_id=f"call{number}@b2bua")
    call_id, tags = f"{session.call_id}-0", (session.from_tag, session.to_tag)
    caller = update(session, session.caller, 4000)
    callee = update(session, session.callee, 4002)
    assert caller[0] == callee[0] and caller[1] != callee[1], (caller, callee)
    # Each side changes its port: the other one's goes on to the same place.
    assert update(session, session.caller, 4004) == caller
    assert update(session, session.callee, 4006) == callee
    assert len(outcome(session.stats)) == 5
    assert outcome(lambda done: session.start_recording(result_callback=done, rflags="s")) == "0"
    session.delete()
    # Nobody waits for the delete, and a datagram behind it may overtake it.
    replies = (said(client, f"Q {call_id} {tags[0]} {tags[1]}") for _ in range(100))
    assert "E50" in replies, "the session lives on"

client.shutdown()
