"""Ending a run on request: SIGTERM and SIGINT finish the step and save."""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

from unpg.errors import UnpgError

__all__ = ["StopRequest", "Stopped"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(UnpgError):
    """The run was asked to end, and has saved its state.

    Args:
        message: What happened and how to go on.
        number: The signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class StopRequest:
    """Notes the first SIGTERM or SIGINT of a ``with`` block; the second one acts as it would without us, at once.

    Two that come in the same instant, before Python has seen either, count as the first. Where a signal was ignored, as
    shells have SIGINT ignored in what they start in the background, the second one ends the process all the same.

    Python hands signals to its main thread; in another thread this does nothing.

    Args:
        last_words: Errors after which SIGTERM stays ignored when they leave the block, so that the process ends by
            itself and says why. None: after none.

    Attributes:
        signal: The signal that came, or None.
    """

    def __init__(self, last_words: Callable[[BaseException], bool] | None = None) -> None:
        self._last_words = last_words
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # None: a handler that was not set from Python, which Python cannot set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self._before and error is not None and self._last_words is not None and self._last_words(error):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        for one, handler in self._before.items():
            ends = signal.default_int_handler if one == signal.SIGINT else signal.SIG_DFL
            signal.signal(one, ends if handler in (None, signal.SIG_IGN) else handler)
        # Not print: the signal may have come in the middle of one.
        told = f"\n{self.signal.name}: finishing the step, then saving. A second signal stops at once.\n"
        with suppress(OSError):
            os.write(2, told.encode())
