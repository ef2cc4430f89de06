"""A headless Chromium with one page, told what to do by lines on standard input: browser.py URL WIDTH PROFILE

    eval EXPRESSION     answers its value
    until EXPRESSION    waits until it is true, and answers its value
    shot FILE           writes a screenshot of the whole page
    console             answers what the browser has complained of

Each answer is a line of JSON. The browser is spoken to over a pair of pipes, by its DevTools protocol, and ends with us.
"""
import base64
import json
import os
import subprocess
import sys
import time

url, width, profile = sys.argv[1], int(sys.argv[2]), sys.argv[3]
ours_in, theirs_out = os.pipe()
theirs_in, ours_out = os.pipe()
flags = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --remote-debugging-pipe"
)
browser = subprocess.Popen(
    ["sh", "-c", f'exec chromium {flags} "$@" 3<&{theirs_in} 4>&{theirs_out}', "sh", f"--user-data-dir={profile}", "about:blank"],
    pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
)
os.close(theirs_in)
os.close(theirs_out)
pending, complaints, number, session = b"", [], 0, None


def message():
    global pending
    while b"\0" not in pending:
        more = os.read(ours_in, 1 << 16)
        if not more:
            sys.exit("the browser has ended")
        pending += more
    text, pending = pending.split(b"\0", 1)
    return json.loads(text)


def note(event):
    what, about = event.get("method"), event.get("params", {})
    if what == "Runtime.exceptionThrown":
        complaints.append(about["exceptionDetails"].get("exception", {}).get("description") or about["exceptionDetails"]["text"])
    elif what == "Runtime.consoleAPICalled":
        complaints.append(f'{about["type"]}: {[value.get("value") for value in about["args"]]}')
    elif what == "Log.entryAdded":
        complaints.append(f'{about["entry"]["level"]}: {about["entry"]["text"]} {about["entry"].get("url", "")}')


def call(method, **parameters):
    global number
    number += 1
    request = {"id": number, "method": method, "params": parameters}
    if session:
        request["sessionId"] = session
    os.write(ours_out, json.dumps(request).encode() + b"\0")
    while True:
        answer = message()
        if answer.get("id") == number:
            if "error" in answer:
                sys.exit(f'{method}: {answer["error"]}')
            return answer["result"]
        note(answer)


def value(expression):
    result = call("Runtime.evaluate", expression=expression, returnByValue=True)
    # While the page is on its way what is asked for is not there, and no value.
    return None if "exceptionDetails" in result else result["result"].get("value")


target = call("Target.createTarget", url="about:blank")["targetId"]
session = call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
for domain in ("Runtime", "Log", "Page"):
    call(f"{domain}.enable")
call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
if len(sys.argv) > 4:
    call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": sys.argv[4]}])
call("Page.navigate", url=url)
for line in sys.stdin:
    command, _, rest = line.rstrip("\n").partition(" ")
    if command == "until":
        end = time.monotonic() + 60
        while not (answer := value(rest)):
            if time.monotonic() > end:
                sys.exit(f"waited in vain: {rest}\n{complaints}\n{value('document.body.innerText')}")
            time.sleep(0.02)
    elif command == "eval":
        answer = value(rest)
    elif command == "shot":
        data = call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        with open(rest, "wb") as picture:
            picture.write(base64.b64decode(data))
        answer = True
    else:
        # What is on its way has come before the answer to this.
        value("0")
        answer = complaints
    print(json.dumps(answer), flush=True)
browser.terminate()
browser.wait()
