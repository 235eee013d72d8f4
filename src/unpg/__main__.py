"""``python -m unpg`` is ``unpg``; ``torchrun -m unpg`` starts it in several processes."""

import sys

from unpg.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
