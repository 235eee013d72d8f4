"""``unpg VERB ...``: finds the verb, and turns our errors into one clear message."""

import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence

from unpg import __version__
from unpg.errors import UnpgError, did_you_mean

__all__ = ["VERBS", "main"]

VERBS = {
    "train": "train a network from a recipe",
    "evaluate": "judge a model on benchmarks",
    "diagnose": "show which similarities a loss sees, beside all that there are",
    "data": "look at, check, convert, split, audit and render image sets",
    "report": "make one HTML page of runs and results",
    "study": "train arms with several seeds, choose settings on held-out people, and compare",
    "import": "turn weights of others into a model file",
    "demo": "train CosFace and CosFace + UNPG on synthetic faces and compare them",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; the exit status.

    0, or 2 for an error that a message explains; 130 or 143 (128 and the signal's number) for a run that SIGINT or
    SIGTERM has ended. 1 is left to faults of the program.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need be no text
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"unpg {__version__}")
        return 0
    verb, rest = words[0], words[1:]
    if verb not in VERBS:
        print(f"unpg: no verb is called {verb!r}.{did_you_mean(verb, VERBS)}", file=sys.stderr)
        return 2
    try:
        # A verb is imported when it is asked for: `unpg --help` need not wait for torch.
        importlib.import_module(f"unpg.cli.{verb}_verb").run(rest)
    except UnpgError as error:
        print(f"unpg {verb}: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `| head` has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor has Python to say so at its end
        return 141  # as a shell says of SIGPIPE
    except OSError as error:  # a folder that cannot be written, a full disk
        if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        what = "is there already, and is no folder" if isinstance(error, FileExistsError) else error.strerror
        print(f"unpg {verb}: {place}{what}. Mend that, or name another place.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nunpg {verb}: interrupted.", file=sys.stderr)
        return 130
    return 0


def _usage() -> str:
    verbs = "\n".join(f"  {verb:10} {what}" for verb, what in VERBS.items())
    return f"usage: unpg VERB [options]\n\n{verbs}\n\n`unpg VERB --help` shows the options of a verb."


if __name__ == "__main__":
    sys.exit(main())
