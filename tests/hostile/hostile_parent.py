"""The other end of ``hostile_child``: starts it, watches it, and says which input it died or hung of."""

import base64
import json
import os
import select
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HANG = 60.0
"""Seconds on the clock without the next input; the child's own bound, of processor time, is lower."""


class Died(AssertionError):
    """The reading process crashed or hung."""


class Child:
    """A reading process, begun anew after a crash."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command and wait for its reply.

        Raises:
            Died: The process crashed or hung; names the reader and the input's number.
        """
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        if isinstance(command.get("data"), bytes):
            command["data"] = base64.b64encode(command["data"]).decode()
        process.stdin.write(json.dumps(command) + "\n")
        process.stdin.flush()
        seen, since = self._number(), time.monotonic()
        while not select.select([process.stdout], [], [], 1.0)[0]:
            if self._number() != seen:
                seen, since = self._number(), time.monotonic()
            elif time.monotonic() - since > HANG:
                self.close()
                raise Died(f"{self._where(command)} hangs: {HANG} s. {self._said()}")
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            self.close()
            raise Died(f"{self._where(command)} ended the process ({code}). {self._said()}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()  # closes the pipes
            self.process = None

    def _running(self) -> subprocess.Popen[str]:
        if self.process is None:
            self.folder.mkdir(exist_ok=True)
            (self.folder / "progress").write_bytes(struct.pack("<q", -1))
            with open(self.folder / "stderr", "w") as said:
                self.process = subprocess.Popen(
                    [sys.executable, str(Path(__file__).with_name("hostile_child.py")), str(self.folder)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    text=True,
                    env={
                        **os.environ,
                        "XDG_CACHE_HOME": str(self.folder / "cache"),
                        "OMP_NUM_THREADS": "1",
                        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
                    },
                )
        return self.process

    def _number(self) -> int:
        return int(struct.unpack("<q", (self.folder / "progress").read_bytes())[0])

    def _where(self, command: dict[str, Any]) -> str:
        return f"{command.get('name')}, input {self._number()}"

    def _said(self) -> str:
        text = (self.folder / "stderr").read_text(errors="replace")
        return text[:3000]
