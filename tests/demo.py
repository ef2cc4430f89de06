"""One call through a control socket: demo.py SOCKET. Shows each command, its reply, and the media that passes."""
import socket
import struct
import sys

CONTROL = sys.argv[1]
CALL, CALLER, CALLEE = "demo-call@example.org", "caller-tag", "callee-tag"
PACKETS = 5


def ask(command):
    """A command on a connection of its own, as SIP servers do it: no line end, one read."""
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(10)
        control.connect(CONTROL)
        control.sendall(command.encode())
        reply = control.recv(256).decode().rstrip("\n")
    print(f"  {command}\n    -> {reply}")
    return reply


def phone():
    """A phone's media socket on this machine."""
    media = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    media.bind(("127.0.0.1", 0))
    media.settimeout(5)
    return media


def where(reply):
    """The port and address in a reply to U or L."""
    port, address = reply.split()[:2]
    return address, int(port)


def talk(name, speaker, target, listener):
    """Sends some packets of RTP and waits for each at the other side."""
    for number in range(PACKETS):
        packet = struct.pack("!BBHII", 0x80, 0, number, number * 160, 0x5EED) + bytes([number]) * 160
        speaker.sendto(packet, target)
        arrived, proxy = listener.recvfrom(2048)
        if arrived != packet:
            sys.exit(f"{name}: packet {number} did not arrive as it was sent")
    print(f"  {name}: {PACKETS} packets of RTP sent to {target[0]}:{target[1]}, "
          f"{PACKETS} arrived, from {proxy[0]}:{proxy[1]}")


def expect(reply, good, meaning):
    """Ends the demo where a reply is not what it should be."""
    if not good(reply):
        sys.exit(f"expected {meaning}, got {reply!r}")


caller, callee = phone(), phone()
at = {side: side.getsockname() for side in (caller, callee)}

print("The INVITE: a session is created on one of the RTPproxies (U); its port goes into the SDP for the callee.")
to_caller = where(ask(f"U {CALL} {at[caller][0]} {at[caller][1]} {CALLER}"))
print("The 200 OK: the session is looked up (L) at the same RTPproxy; its port goes into the SDP for the caller.")
to_callee = where(ask(f"L {CALL} {at[callee][0]} {at[callee][1]} {CALLER} {CALLEE}"))
if to_caller[0] != to_callee[0]:
    sys.exit("the two sides of one call are at different RTPproxies")
print("They talk:")
talk("caller to callee", caller, to_callee, callee)
talk("callee to caller", callee, to_caller, caller)
print("How is the call (Q)? Time to live, packets from the caller, from the callee, relayed, dropped:")
expect(ask(f"Q {CALL} {CALLER} {CALLEE}"), lambda reply: len(reply.split()) == 5, "five numbers")
print("The BYE: the session is deleted (D), and nobody knows it any more.")
expect(ask(f"D {CALL} {CALLER} {CALLEE}"), lambda reply: reply == "0", "0")
expect(ask(f"Q {CALL} {CALLER} {CALLEE}"), lambda reply: reply == "E50", "E50")
