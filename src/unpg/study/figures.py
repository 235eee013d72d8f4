"""The figures of a study: every seed of the primary endpoint and its differences, TAR over FAR, training, and which
negatives the losses see.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from unpg.report.figures import COLORS, INK, MUTED, Drawing, as_svg, legend_above, line_style, power, small_axes
from unpg.study.diagnoses import DRAWN, EDGES, Diagnosed
from unpg.study.recipe import Study
from unpg.study.summary import ArmDifference, Summary
from unpg.study.tables import endpoint_heading

__all__ = ["study_figures"]

_FARS = 1e-6, 1e-2
_MEAN, _DIFFERENCE = COLORS[0], COLORS[1]


Epochs = Mapping[str, Sequence[Mapping[str, Sequence[float | None]]]]
Curve = Mapping[str, Sequence[float]]
Curves = Mapping[str, Mapping[int, Curve]]


def study_figures(
    study: Study,
    summary: Summary,
    curves: Curves,
    by_epoch: Epochs,
    diagnosed: Mapping[str, Sequence[Diagnosed]] = MappingProxyType({}),
) -> dict[str, Drawing]:
    """Drawings by name: ``endpoint``, and ``tar-<arm>``, ``training-<arm>`` and ``seen-<arm>`` for each arm that is no
    other's change.

    Args:
        study: The study.
        summary: What it found.
        curves: By arm and seed ``far`` and ``tar``, as the results keep them.
        by_epoch: By arm, of each seed what the loss said of itself.
        diagnosed: By arm, diagnoses of its runs.
    """
    found = {"endpoint": _endpoint(study, summary)}
    for root in (name for name, arm in study.arms.items() if arm.of is None):
        family = [arm for arm in study.arms if root in study.line(arm) and curves.get(arm)]
        drawing = _tar_over_far(study, root, family, curves)
        if drawing is not None:
            found[f"tar-{root}"] = drawing
        family = [arm for arm in study.arms if root in study.line(arm) and by_epoch.get(arm)]
        if any("share/batch" in one for arm in family for one in by_epoch[arm]):
            found[f"training-{root}"] = _training(study, family, by_epoch)
        family = [arm for arm in study.arms if root in study.line(arm) and diagnosed.get(arm)]
        if family:
            found[f"seen-{root}"] = _seen(study, family, diagnosed)
    return found


def _endpoint(study: Study, summary: Summary) -> Drawing:
    """Rows of arms: on the left all seeds, their mean and its interval; on the right the difference from the base."""
    means, differences = summary.of(summary.primary)
    of = {d.arm: d for d in differences}
    what = endpoint_heading(summary.primary)
    said = (
        f"{what}, per cent. Left: every seed (hollow), the mean of the seeds and its "
        f"{100 * summary.confidence:.4g} % interval. Right: the difference from the arm without, in points, with its "
        "interval."
    )
    height = 0.7 + 0.5 * len(means)
    with small_axes([], height=height) as (figure, left):
        left.remove()
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.25, 1))
        for row, mean in enumerate(reversed(means)):
            at = row + 0.3
            left.plot(
                [100 * v for v in mean.values], [at] * len(mean.values), "o", mfc="none", mec=MUTED, ms=4.5, mew=0.9
            )
            _bar(left, at, mean.mean, mean.low, mean.high, _MEAN)
            left.annotate(
                study.label(mean.arm), (0, row + 0.78), xycoords=("axes fraction", "data"), va="center", fontsize=8.5
            )
            if mean.arm in of:
                _difference(right, at, of[mean.arm])
        right.axvline(0, color=INK, linewidth=0.8)
        left.set_ylim(0, len(means))
        left.set_xlabel(f"{what.partition(': ')[2]} (%)")
        right.set_xlabel("difference (points)")
        for axes in (left, right):
            axes.yaxis.set_visible(False)
            axes.spines["left"].set_visible(False)
            axes.xaxis.set_major_locator(MaxNLocator(5))
        return Drawing(as_svg(figure, said), said)


def _difference(axes: Axes, at: float, difference: ArmDifference) -> None:
    axes.plot(
        [100 * d for d in difference.by_seed],
        [at] * len(difference.by_seed),
        "D",
        mfc="none",
        mec=MUTED,
        ms=3.5,
        mew=0.9,
    )
    _bar(axes, at, difference.estimate, difference.low, difference.high, _DIFFERENCE)


def _bar(axes: Axes, at: float, value: float, low: float | None, high: float | None, color: str) -> None:
    if low is not None and high is not None:
        axes.plot([100 * low, 100 * high], [at, at], color=color, linewidth=2.2, solid_capstyle="butt")
    axes.plot([100 * value], [at], marker="|", color=color, markersize=12, markeredgewidth=2.2)


def _tar_over_far(study: Study, root: str, family: Sequence[str], curves: Curves) -> Drawing | None:
    """Above TAR over FAR; below the difference from the base, which the curves are too close to show."""
    drawn = {arm: _mean_curve(list(curves[arm].values())) for arm in family}
    drawn = {arm: (far, tar) for arm, (far, tar) in drawn.items() if len(far) > 1}
    if root not in drawn:
        return None
    benchmark, base = study.primary.rpartition("/")[0], study.label(root)
    said = (
        f"{benchmark}: above TAR over FAR, below the difference from {base} in per cent of its TAR; means over seeds, "
        "the difference over those that both arms have."
    )
    labels = [study.label(arm) for arm in drawn]
    with small_axes(labels, height=4.2) as (figure, above):
        above.remove()
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        entries: list[Any] = []
        for number, (arm, (far, tar)) in enumerate(drawn.items()):
            entries += above.plot(far, 100 * tar, **line_style(number))
            below.plot(*_gain(curves[arm], curves[root]), **line_style(number))
        above.set(ylabel="TAR (%)", xscale="log", yscale="log")
        below.set(xlabel="FAR", ylabel="difference\n(% of TAR)")
        below.xaxis.set_major_locator(LogLocator(10, numticks=12))
        below.xaxis.set_major_formatter(FuncFormatter(power))
        below.yaxis.set_major_locator(MaxNLocator(5))
        low, high = above.get_ylim()
        ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= t <= high]
        above.yaxis.set_ticks(ticks, [f"{t:g}" for t in ticks])
        for axis in (below.xaxis, above.yaxis):
            axis.set_minor_formatter(NullFormatter())
        legend_above(above, entries, labels)
        return Drawing(as_svg(figure, said), said)


def _training(study: Study, family: Sequence[str], by_epoch: Epochs) -> Drawing:
    """Which set pushes when, how hard, and what becomes of the features: three panels over the epochs."""
    said = (
        "Over the epochs, means over seeds. Above: the part that the batch's negatives have of all negatives in the "
        "denominator, and so of their gradient. Middle: the norm of the whole gradient. Below: the mean cosine of any "
        "two features of a batch."
    )
    labels = [study.label(arm) for arm in family]
    panels = {"batch negatives\n(% of negatives)": _pushed, "gradient\nnorm": _named("grad_norm")}
    panels |= {"mean cosine\nof two features": _named("cosine/pairwise")}
    with small_axes(labels, height=5.2) as (figure, first):
        first.remove()
        rows = figure.subplots(len(panels), 1, sharex=True)
        entries: list[Any] = []
        for axes, (heading, value) in zip(rows, panels.items(), strict=True):
            for number, arm in enumerate(family):
                epochs, values = _over_seeds([value(one) for one in by_epoch[arm]])
                lines = axes.plot(epochs, values, **line_style(number))
                entries += lines if axes is rows[0] else []
            axes.set_ylabel(heading)
            axes.yaxis.set_major_locator(MaxNLocator(4))
        rows[-1].set_xlabel("epoch")
        rows[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        legend_above(rows[0], entries, labels)
        return Drawing(as_svg(figure, said), said)


_SAMPLES = {"CLPG": "class negatives", "MLPG": "batch negatives", DRAWN: "what UNPG draws"}


def _seen(study: Study, family: Sequence[str], diagnosed: Mapping[str, Sequence[Diagnosed]]) -> Drawing:
    """A panel for each arm: how often its loss is shown a similarity, against how often there is one."""
    said = (
        "How often a sample of negatives draws a similarity, as a multiple of how often it stands among all negatives "
        "of the training set; means over seeds. On the line, the loss sees what there is; below it, less. Shaded: the "
        "hardest 0.1 %, the false accepts at FAR 10⁻³. What UNPG draws is filtered and weighed as in the run; in a run "
        "without UNPG, with r = 1.5 and w = 1."
    )
    rows = -(-len(family) // 2)
    with small_axes(list(_SAMPLES.values()), height=0.5 + 1.9 * rows) as (figure, first):
        first.remove()
        panels = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False).ravel()
        entries: dict[str, Any] = {}
        for axes, arm in zip(panels, family, strict=False):
            axes.set_title(study.label(arm), fontsize=8.5, loc="left")
            axes.axhline(1, color=INK, linewidth=0.8)
            sup = float(np.mean([one.similarities["robust_sup_negative"] for one in diagnosed[arm]]))
            axes.axvspan(sup, 1, color="#eeeeee", linewidth=0, zorder=0)
            for number, (name, label) in enumerate(_SAMPLES.items()):
                at, ratio = _ratio(diagnosed[arm], name)
                if len(at):
                    entries.setdefault(label, *axes.plot(at, ratio, **line_style(number)))
        for axes in panels[len(family) :]:
            axes.remove()
            panels[len(family) - 2].tick_params(labelbottom=True)  # nothing stands below it any more
        panels[0].set(xlim=(0, 0.8), yscale="log", ylim=(0.02, 50))
        panels[0].yaxis.set_major_formatter(FuncFormatter(power))
        panels[0].yaxis.set_minor_formatter(NullFormatter())
        figure.supxlabel("cosine similarity", fontsize=9)
        figure.supylabel("drawn / there is", fontsize=9)
        legend_above(panels[0], list(entries.values()), list(entries))
        return Drawing(as_svg(figure, said), said)


def _ratio(runs: Sequence[Diagnosed], name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centers of the bins with 100 negative pairs or more, and the density of a sample over that of all negatives."""
    if any(name not in one.histograms for one in runs):
        return np.array([]), np.array([])
    there = np.sum([one.histograms["negatives"] for one in runs], axis=0)
    # Each run alike: one whose filter keeps more does not count for more.
    seen = np.mean([np.array(one.histograms[name]) / sum(one.histograms[name]) for one in runs], axis=0)
    enough = there >= 100
    return ((EDGES[1:] + EDGES[:-1]) / 2)[enough], seen[enough] / (there[enough] / there.sum())


def _pushed(run: Mapping[str, Sequence[float | None]]) -> list[float]:
    classes = _named("share/classes")(run)
    batch = _named("share/batch")(run)
    # Without UNPG, and before it starts, there is no batch set.
    batch = [0.0 if np.isnan(b) else b for b in batch] if batch else [0.0] * len(classes)
    return [100 * b / (b + c) if b + c > 0 else np.nan for b, c in zip(batch, classes, strict=True)]


def _named(name: str) -> Callable[[Mapping[str, Sequence[float | None]]], list[float]]:
    return lambda run: [np.nan if value is None else float(value) for value in run.get(name, ())]


def _over_seeds(seeds: Sequence[Sequence[float]]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Epochs, from 1, and the mean over seeds of each; as many as all seeds have."""
    n = min(len(seed) for seed in seeds)
    return np.arange(1, n + 1), np.array([seed[:n] for seed in seeds], dtype=float).mean(axis=0)


def _gain(arm: Mapping[int, Curve], base: Mapping[int, Curve]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """FARs, and there the mean TAR of ``arm`` over that of ``base``, per cent above it, over the seeds of both."""
    shared = [seed for seed in arm if seed in base]
    if not shared:
        return np.empty(0), np.empty(0)
    far, tar = _mean_curve([arm[seed] for seed in shared])
    of = dict(zip(*_mean_curve([base[seed] for seed in shared]), strict=True))
    there = np.array([x in of for x in far], dtype=bool)
    return far[there], 100 * (tar[there] / np.array([of[x] for x in far[there]]) - 1)


def _mean_curve(seeds: Sequence[Curve]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """FARs that all seeds have, within the figure, and the mean TAR at each that is above zero."""
    of = [dict(zip(seed["far"], seed["tar"], strict=True)) for seed in seeds]
    shared = [far for far in of[0] if _FARS[0] <= far <= _FARS[1] and all(far in one for one in of)]
    tar = np.array([np.mean([one[far] for one in of]) for far in shared])
    return np.array(shared)[tar > 0], tar[tar > 0]
