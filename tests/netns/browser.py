"""Debian's Chromium without a window, driven over the DevTools protocol by a pair of pipes."""

import base64
import contextlib
import json
import os
import select
import subprocess
import time


class Browser:
    """One page in one browser, in the namespace `where` of a lab; `flags` are words of a shell. Collects what the console complains of."""

    def __init__(self, lab, where, *flags):
        own, theirs = os.pipe(), os.pipe()
        command = ("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-pipe",
                   "--disable-background-networking", "--disable-component-update", "--window-size=1280,900", f"--user-data-dir={lab.directory}/chromium", *flags, "about:blank")
        shell = f"exec {' '.join(command)} 3<&{own[0]} 4>&{theirs[1]} 2>/dev/null"
        self.process = lab.spawn(where, "bash", "-c", shell, pass_fds=(own[0], theirs[1]), stdout=subprocess.DEVNULL)
        os.close(own[0])
        os.close(theirs[1])
        self.out, self.inn = own[1], theirs[0]
        self.buffer, self.number, self.complaints, self.requests = b"", 0, [], {}
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Network", "Page"):
            self.call(f"{domain}.enable")

    def close(self):
        with contextlib.suppress(OSError, AssertionError):
            self.session = None
            self.call("Browser.close", seconds=5)
        for pipe in (self.out, self.inn):
            os.close(pipe)

    def call(self, method, seconds=30, **parameters):
        """A command's result."""
        self.number += 1
        command = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            command["sessionId"] = self.session
        os.write(self.out, json.dumps(command).encode() + b"\0")
        end = time.monotonic() + seconds
        while True:
            message = self._read(end)
            assert message is not None, f"no answer to {method}"
            if message.get("id") == self.number:
                assert "error" not in message, message
                return message["result"]

    def _read(self, end):
        """The next message; complaints are noted on the way."""
        while b"\0" not in self.buffer:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.inn], [], [], left)[0]:
                return None
            piece = os.read(self.inn, 1 << 16)
            if not piece:
                return None
            self.buffer += piece
        text, _, self.buffer = self.buffer.partition(b"\0")
        message = json.loads(text)
        method, parameters = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] == "error":
            self.complaints.append(" ".join(str(a.get("value", a.get("description"))) for a in parameters["args"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.complaints.append(parameters["entry"]["text"] + " " + parameters["entry"].get("url", ""))
        elif method == "Network.requestWillBeSent":
            self.requests[parameters["requestId"]] = parameters["request"]["url"]
        return message

    def idle(self, seconds):
        """Lets the page run."""
        end = time.monotonic() + seconds
        while self._read(end) is not None:
            pass

    def go(self, url):
        self.call("Page.navigate", url=url)

    def evaluate(self, script):
        """What a script gives, in the page."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, what, script, seconds=20):
        """Waits until a script gives something true."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(script)):
            assert time.monotonic() < end, f"waited for {what}; the page says: {self.text()[:1500]}"
            self.idle(0.1)
        return value

    def text(self):
        return self.evaluate("document.body ? document.body.innerText : ''")

    def wait_text(self, *texts):
        """Waits until the page shows each of `texts`, in any case."""
        for text in texts:
            self.wait(repr(text), f"document.body && document.body.innerText.toLowerCase().includes({json.dumps(text.lower())})")

    def click(self, script):
        """A real click in the middle of the element that a script gives."""
        place = self.wait(f"something to click: {script}", f"""(() => {{
            const element = {script};
            if (!element) return null;
            element.scrollIntoView({{block: 'center'}});
            const box = element.getBoundingClientRect();
            return box.width ? [box.x + box.width / 2, box.y + box.height / 2] : null;
        }})()""")
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="none" if kind == "mouseMoved" else "left", clickCount=1)

    def screenshot(self, path):
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))
