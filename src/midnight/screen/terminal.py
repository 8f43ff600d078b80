"""Lines on a stream and, where that is a terminal, one status line below them."""

import contextlib
import os
import shutil
from typing import TextIO

from midnight.logs import CLEAR

COLOURS = {"good": "\033[32m", "bad": "\033[31m"}
PLAIN = "\033[0m"


class Terminal:
    """Without a terminal only whole lines are written, and no control codes."""

    def __init__(self, stream: TextIO, colour: bool = True) -> None:
        self.stream = stream
        self.live = stream.isatty() and os.environ.get("TERM") != "dumb"
        self.colour = colour and self.live and "NO_COLOR" not in os.environ
        self._status = ""

    def line(self, text: str, kind: str = "") -> None:
        """Write a line that stays (or several), above the status line.

        Args:
            text: without the end of the line.
            kind: "good" or "bad" give it a colour.
        """
        if self.colour and kind:
            text = f"{COLOURS[kind]}{text}{PLAIN}"
        self._write(f"{CLEAR if self._status else ''}{text}\n{self._drawn(self._status)}")

    def status(self, text: str) -> None:
        """Put another status line; nothing where there is no terminal, or for the same text."""
        if self.live and text != self._status:
            self._status = text
            self._write(f"{CLEAR}{self._drawn(text)}")

    def _drawn(self, text: str) -> str:
        """The status as wide as fits; the cursor ends at its beginning, so that what jobs write begins a line."""
        if not text:
            return ""
        width = shutil.get_terminal_size().columns - 1
        return f"{text if len(text) <= width else text[: width - 1] + '…'}\r"

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # the terminal may be gone
            self.stream.write(text)
            self.stream.flush()
