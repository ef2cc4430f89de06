"""A terminal of 80 by 24 with somebody at it: terminal.py PROGRAM ARGUMENT... -- STEP...

A step is `>KEYS` (typed, with the escapes of Python: \\t, \\x03, \\x1b[A), `<TEXT` (waited for), or `@FILE` (made, and
waited for until somebody has removed it). After the last one the end of the program is waited for. Prints what was on the screen, escapes and all; ends as the program did, or with 99
and a word about the step that waited in vain.
"""
import os
import sys
import time

import pexpect

end = sys.argv.index("--")
program, *arguments = sys.argv[1:end]
child = pexpect.spawn(program, arguments, dimensions=(24, 80), timeout=15, encoding="utf-8")
child.logfile_read = sys.stdout
for step in sys.argv[end + 1:]:
    try:
        if step[0] == ">":
            child.send(step[1:].encode().decode("unicode_escape"))
        elif step[0] == "@":
            open(step[1:], "w").close()
            while os.path.exists(step[1:]):
                time.sleep(0.01)
        else:
            child.expect_exact(step[1:])
    except pexpect.ExceptionPexpect as error:
        print(f"\n{step!r}: {type(error).__name__}, before it: {child.before!r}", file=sys.stderr)
        sys.exit(99)
try:
    child.expect(pexpect.EOF)
except pexpect.ExceptionPexpect:
    print(f"\nit does not end: {child.before!r}", file=sys.stderr)
    sys.exit(99)
child.close()
sys.exit(child.exitstatus if child.exitstatus is not None else 98)
