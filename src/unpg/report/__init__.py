"""One self-contained HTML page about one or several models: ``write_report(out, [load_run(folder),
...])``.
"""

from unpg.report.differences import RunDifference, run_differences
from unpg.report.page import write_report
from unpg.report.run import RunData, load_run

__all__ = ["RunData", "RunDifference", "load_run", "run_differences", "write_report"]
