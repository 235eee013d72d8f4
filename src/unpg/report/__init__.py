"""One self-contained HTML page about one or several models: ``write_report(out, [load_run(folder), ...])``; its tables
as Markdown, CSV and LaTeX: ``write_tables(out, runs, "md")``; and a page about an audit of a set.
"""

from unpg.report.audit_page import write_audit_page
from unpg.report.differences import RunDifference, run_differences
from unpg.report.page import report_tables, write_report, write_tables
from unpg.report.recipes import Recipe, recipes
from unpg.report.run import RunData, load_run
from unpg.report.table import Cell, Table

__all__ = [
    "Cell",
    "Recipe",
    "RunData",
    "RunDifference",
    "Table",
    "load_run",
    "recipes",
    "report_tables",
    "run_differences",
    "write_audit_page",
    "write_report",
    "write_tables",
]
