"""One self-contained HTML page about one or several models: ``write_report(out, [load_run(folder),
...])``.
"""

from unpg.report.page import write_report
from unpg.report.run import RunData, load_run

__all__ = ["RunData", "load_run", "write_report"]
