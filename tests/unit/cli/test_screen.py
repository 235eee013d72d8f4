"""The terminal of a verb whose reader goes away."""

import os
import subprocess
import sys

PROGRAM = """
import sys
from unpg.cli.screen import Screen

screen = Screen()
for line in range(3):
    screen.print(line)
print("the work was done", file=sys.stderr)
"""


def test_a_reader_that_has_gone_does_not_end_the_work():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "the work was done\n")
