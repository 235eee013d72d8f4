"""What a network had learned when UNPG began, and what UNPG then made of it: one point for each pair of runs.

    python recipes/study/starts.py --figure docs/figures/starts.svg

Of every study beside this file (or of those named) the final runs whose UNPG is the paper's (w = 1, shared pairs, r =
1.5) but begins in a later epoch, each against its base of the same seed. Across, the part of the softmax denominator
that the positives have in the base's last epoch before that (``share/target``, a mean over the epoch's logged steps).
Up, what UNPG changes at the end, in per cent of the base's figure. Studies whose data are absent are named, left out.
"""

import argparse
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.ticker import FuncFormatter, NullFormatter

from unpg.errors import UnpgError
from unpg.report.figures import COLORS, INK, MARKERS, as_svg, legend_above, power, small_axes
from unpg.study.plan import Plan, Run
from unpg.study.recipe import read_study
from unpg.study.results import Results, results_path
from unpg.train.config import UnpgConfig

HERE = Path(__file__).parent
RENDERED = "synthetic", "kface-twin"


class Start(NamedTuple):
    """A run with UNPG from a later epoch, and its base.

    Attributes:
        study: Name of the study.
        arm: Name of the arm.
        seed: Of both runs.
        epoch: In which UNPG begins.
        share: Of the positives in the base's denominator, in the epoch before; in [0, 1].
        eer: Equal error rate of the base, in [0, 1].
        eer_change: What UNPG adds to it, in parts of it.
        tar_change: The same of the TAR, at the FAR that the study names first.
        far: That FAR, as figures name it.
        rendered: Whether people who do not exist were trained on.
    """

    study: str
    arm: str
    seed: int
    epoch: int
    share: float
    eer: float
    eer_change: float
    tar_change: float
    far: str
    rendered: bool


def paper_but_later(unpg: UnpgConfig | None) -> bool:
    """Whether UNPG is the paper's in all but its start."""
    return unpg is not None and unpg.start_epoch >= 1 and unpg == UnpgConfig(start_epoch=unpg.start_epoch)


def starts(plan: Plan) -> Iterator[Start]:
    """Those of a study whose two runs are there."""
    study = plan.study
    figures = [name for name in study.endpoints if "/tar@far=" in name]
    benchmark, _, far = figures[0].rpartition("/") if figures else ("", "", "")
    for arm, about in study.arms.items():
        if about.of is None or not far:
            continue
        for run, base in zip(plan.finals(arm), plan.finals(about.of), strict=True):
            if run is None or base is None or base.config.unpg is not None or not paper_but_later(run.config.unpg):
                continue
            pair = [plan.results.get(one.digest) for one in (base, run)]
            if all(line is not None and not line["diverged"] for line in pair):
                found = start(study.name, run, pair, benchmark, far)
                if found is not None:
                    yield found


def start(study: str, run: Run, pair: Sequence[Mapping[str, Any] | None], benchmark: str, far: str) -> Start | None:
    """One of two lines of results, base first; None if the loss has no positives in a denominator, or a TAR is 0."""
    base, line = (one or {} for one in pair)
    assert run.config.unpg is not None
    epoch = math.floor(run.config.unpg.start_epoch)
    shares = base["by_epoch"].get("share/target")
    eer, tar, of_eer, of_tar = (one["scores"][benchmark][name] for one in (line, base) for name in ("eer", far))
    if not shares or not of_tar or not of_eer:
        return None
    share = shares[epoch - 1]
    rendered = run.config.data["kind"] in RENDERED
    return Start(study, run.arm, run.seed, epoch, share, of_eer, eer / of_eer - 1, tar / of_tar - 1, far, rendered)


def every_start(files: Iterable[Path]) -> list[Start]:
    """Of all studies, each pair of runs once, by the positives' share."""
    found: dict[tuple[float, ...], Start] = {}
    for file in files:
        study, base = read_study(file)
        try:
            for one in starts(Plan(study, base, Results(results_path(file, study.name)))):
                found.setdefault((one.seed, one.epoch, one.share, one.eer, one.eer_change), one)
        except (UnpgError, OSError) as error:
            print(f"Left out: {study.name}. {error}", file=sys.stderr)
    return sorted(found.values(), key=lambda one: one.share)


def drawn(points: Sequence[Start]) -> str:
    """An SVG: above the change in EER, below that of the TAR, over the positives' share."""
    said = (
        "What UNPG (w = 1) changes, by the part of the denominator that the positives have in the base when it "
        "begins; a point for each pair of runs. Above the EER (less is better), below the TAR at the study's FAR, in "
        "per cent of the base's."
    )
    studies = {one.study: one.study + (", rendered" if one.rendered else "") for one in sorted(points)}
    labels = list(studies.values())
    with small_axes(labels, height=4.6) as (figure, first):
        first.remove()
        above, below = figure.subplots(2, 1, sharex=True)
        entries: list[Any] = []
        for number, study in enumerate(studies):
            of = [one for one in points if one.study == study]
            style = {"color": COLORS[number % len(COLORS)], "marker": MARKERS[number % len(MARKERS)]}
            share = [max(one.share, LEAST) for one in of]
            entries += above.plot(share, [100 * one.eer_change for one in of], ls="", ms=5, **style)
            below.plot(share, [100 * one.tar_change for one in of], ls="", ms=5, **style)
        for axes in (above, below):
            axes.axhline(0, color=INK, linewidth=0.8)
        above.set_ylabel("EER (% of the base's)")
        below.set(xscale="log", ylabel="TAR (% of the base's)", ylim=(-50, 50), xlim=(LEAST / 1.5, 1.3))
        below.set_xlabel("positives' share of the base's denominator when UNPG begins")
        below.xaxis.set_major_formatter(FuncFormatter(power))
        below.xaxis.set_minor_formatter(NullFormatter())
        legend_above(above, entries, labels)
        return as_svg(figure, said)


LEAST = 1e-4
"""Shares below it are drawn there."""


def table(points: Sequence[Start]) -> str:
    """Markdown, a row for each pair."""
    rows = ["| study | arm | seed | epoch | positives' share | EER | TAR |", "|---|---|---|---|---|---|---|"]
    for one in points:
        change = f"{100 * one.eer_change:+.0f} % | {100 * one.tar_change:+.0f} % ({one.far.removeprefix('tar@far=')})"
        rows.append(f"| {one.study} | {one.arm} | {one.seed} | {one.epoch} | {100 * one.share:.2f} % | {change} |")
    return "\n".join(rows)


def main() -> None:
    """Print the table; draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("studies", nargs="*", type=Path, default=sorted(HERE.glob("tier*.yaml")))
    parser.add_argument("--figure", type=Path, help="SVG to write")
    found = parser.parse_args()
    points = every_start(found.studies)
    print(table(points))
    if found.figure is not None and points:
        found.figure.write_text(drawn(points))


if __name__ == "__main__":
    main()
