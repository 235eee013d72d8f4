"""A contact sheet of people who do not exist: a row for each person, a column for each view."""

import sys
from pathlib import Path

from PIL import Image

from unpg.data.synthetic import SyntheticFaces

PEOPLE, VIEWS, SIZE = 4, 8, 112


def main(out: Path) -> None:
    images = SyntheticFaces(PEOPLE, VIEWS, seed=4, first_identity=2, size=(SIZE, SIZE)).materialize().images
    sheet = images.reshape(PEOPLE, VIEWS, SIZE, SIZE, 3).swapaxes(1, 2).reshape(PEOPLE * SIZE, VIEWS * SIZE, 3)
    Image.fromarray(sheet).save(out, quality=85)
    print(f"Wrote {out}: {PEOPLE} people in {VIEWS} views")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "people.jpg"))
