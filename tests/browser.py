"""A headless Chromium that tests drive as a person does: real keys and clicks, and what the page says to its console.

Commands go over a pair of pipes (--remote-debugging-pipe), as JSON objects that end with a zero byte.
"""

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-sync"),
    *("--disable-features=IsolateSandboxedIframes",),  # so that frames can be looked into
    *("--disable-quic", "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe"),
)
PATIENCE = 60.0
KEYS = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39, "ArrowUp": 38, "ArrowDown": 40, "Tab": 9, " ": 32}
KEYS |= {"Home": 36, "End": 35}


def chromium() -> str:
    """The browser's path; skips the test without one, and fails it in CI."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no chromium on PATH; install it: apt-get install -y chromium")
        pytest.skip("no chromium on PATH")
    return found


class Page:
    """One open page.

    Attributes:
      console: everything the page, its workers or the browser complained about or wrote.
      requests: addresses that were asked for, other than the page's own, blobs and data.
    """

    def __init__(self, send: Any, receive: Any) -> None:
        self._send, self._receive = send, receive
        self._numbers = itertools.count(1)
        self._session = ""
        self._context: dict[str, Any] = {}
        self.console: list[str] = []
        self.requests: list[str] = []

    def attach(self) -> None:
        """Opens a blank page and listens to it."""
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Network", "Page"):
            self.command(f"{domain}.enable")
        self.command("Page.bringToFront")
        self.command("Emulation.setFocusEmulationEnabled", enabled=True)

    def command(self, method: str, **params: Any) -> dict[str, Any]:
        """What the browser answers to one command of its protocol."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._send.write(json.dumps(message).encode() + b"\0")
        self._send.flush()
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer}"
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self) -> dict[str, Any]:
        data = bytearray()
        while (byte := self._receive.read(1)) != b"\0":
            assert byte, "the browser has ended"
            data += byte
        message: dict[str, Any] = json.loads(data)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.consoleAPICalled":
            self.console.append(" ".join(str(each.get("value", each.get("description"))) for each in params["args"]))
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.console.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded":
            self.console.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            address = params["request"]["url"]
            if not address.startswith(("file:", "blob:", "data:", "about:")):
                self.requests.append(address)

    def open(self, path: Path) -> None:
        """Opens a file."""
        self.command("Page.navigate", url=path.as_uri())

    def look_into_frame(self, looks: bool = True) -> None:
        """From now on expressions are evaluated in the page's only frame; or again in the page."""
        self._context = {}
        if looks:
            (child,) = self.command("Page.getFrameTree")["frameTree"]["childFrames"]
            world = self.command("Page.createIsolatedWorld", frameId=child["frame"]["id"])
            self._context = {"contextId": world["executionContextId"]}

    def evaluate(self, expression: str) -> Any:
        """The value of an expression, or of the promise that it is, as JSON carries it."""
        asked = {"expression": expression, "returnByValue": True, "awaitPromise": True, **self._context}
        answer = self.command("Runtime.evaluate", **asked)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"].get("exception", answer)
        return answer["result"].get("value")

    def wait(self, expression: str) -> None:
        """Returns as soon as the expression is true."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if self.evaluate(f"Boolean({expression})"):
                return
            time.sleep(0.03)
        raise AssertionError(f"never true: {expression}; console: {self.console}")

    def click(self, selector: str) -> None:
        """Scrolls an element into view and clicks its middle."""
        place = json.dumps(selector)
        x, y = self.evaluate(
            f"(() => {{ const e = document.querySelector({place}); e.scrollIntoView({{block: 'center'}});"
            " const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def focus(self, selector: str) -> None:
        """Puts the keyboard's focus on an element."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")

    def press(self, *keys: str, modifiers: int = 0) -> None:
        """Presses keys, by their names. `modifiers`: 1 Alt, 2 Control, 8 Shift."""
        for key in keys:
            code = KEYS.get(key, ord(key[0].upper()))
            about = {"key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
            typed = {"text": "\r" if key == "Enter" else key} if key in ("Enter", " ") or len(key) == 1 else {}
            if modifiers & 3:
                typed = {}
            self.command("Input.dispatchKeyEvent", type="keyDown", **about, **typed)
            self.command("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text: str) -> None:
        """Types text where the focus is."""
        self.command("Input.insertText", text=text)

    def resize(self, width: int, height: int, phone: bool = False) -> None:
        """The window's size."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )

    def prefer(self, scheme: str) -> None:
        """ "light" or "dark"."""
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG file."""
        answer = self.command("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))


@contextlib.contextmanager
def open_page(scratch: Path) -> Iterator[Page]:
    """A blank page in a browser of its own, whose profile lies in `scratch`."""
    to_browser, from_browser = os.pipe(), os.pipe()
    command = [chromium(), *FLAGS, f"--user-data-dir={scratch / 'profile'}", "about:blank"]
    # The browser reads commands from descriptor 3 and writes answers to 4.
    shell = f'exec 3<&{to_browser[0]} 4>&{from_browser[1]}; exec "$@"'
    process = subprocess.Popen(
        ["bash", "-c", shell, "bash", *command],
        pass_fds=(to_browser[0], from_browser[1]),
        env=os.environ | {"HOME": str(scratch)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser[0])
    os.close(from_browser[1])
    with os.fdopen(to_browser[1], "wb") as send, os.fdopen(from_browser[0], "rb") as receive:
        page = Page(send, receive)
        try:
            page.attach()
            yield page
            with contextlib.suppress(AssertionError):
                page._session = ""
                page.command("Browser.close")
            process.wait(60)
        finally:
            process.kill()
            process.wait()
