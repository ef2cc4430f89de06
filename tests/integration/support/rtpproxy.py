"""A real RTPproxy in a process of its own: rtpproxy.py MEDIA_ADDRESS SOCKET...

It ends when its standard input does, so that it never outlives the test that started it.
"""
import os
import sys

from rtp.io import rtpproxy

arguments = ["-F", "-l", sys.argv[1]]
for socket in sys.argv[2:]:
    arguments += ["-s", socket]
proxy = rtpproxy(port_min=35000, port_max=54998, debug_level="ERR", modules=[], extra_args=arguments)
print("ready", flush=True)
sys.stdin.buffer.read()
os._exit(0)
