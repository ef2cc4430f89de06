"""A real RTPproxy in a process of its own: rtpproxy.py MEDIA_ADDRESS[,MEDIA_ADDRESS] SOCKET... [-- FLAG...]

Of two media addresses, the first has the label `first`, the other one `second`. A flag `module=NAME`
loads that module of RTPproxy. It ends when its standard input does, so
that it never outlives the test that started it.
"""
import os
import sys

from rtp.io import rtpproxy

arguments = ["-F"]
media = sys.argv[1].split(",")
for label, address in zip(["first@", "second@"] if len(media) > 1 else [""], media):
    arguments += ["-6" if ":" in address else "-l", label + address]
sockets, flags = sys.argv[2:], []
if "--" in sockets:
    end = sockets.index("--")
    sockets, flags = sockets[:end], sockets[end + 1:]
for socket in sockets:
    arguments += ["-s", socket]
modules = [flag[len("module="):] for flag in flags if flag.startswith("module=")]
arguments += [flag for flag in flags if not flag.startswith("module=")]
proxy = rtpproxy(port_min=35000, port_max=54998, debug_level="ERR", modules=modules, extra_args=arguments)
print("ready", flush=True)
sys.stdin.buffer.read()
os._exit(0)
