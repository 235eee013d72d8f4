"""Studies: many runs from one file, each judged, kept as one line, and compared with its base (``unpg study``)."""

from unpg.study.plan import Plan, Run
from unpg.study.recipe import Arm, Study, Tuning, read_study
from unpg.study.results import Results, results_path

__all__ = ["Arm", "Plan", "Results", "Run", "Study", "Tuning", "read_study", "results_path"]
