"""The terminal of a verb that works long."""

from contextlib import suppress

from rich.console import Console

__all__ = ["Screen"]


class Screen(Console):
    """A console that falls silent when its reader has gone, as after ``| head``.

    Rich's own ends the program there, before the model or the results are written.
    """

    def on_broken_pipe(self) -> None:
        """Say nothing more, and go on."""
        with suppress(SystemExit):
            super().on_broken_pipe()
