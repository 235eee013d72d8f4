"""One self-contained HTML page about one or several models: ``write_report(out, [load_run(folder),
...])``; and one about an audit of a set.
"""

from unpg.report.audit_page import write_audit_page
from unpg.report.page import write_report
from unpg.report.run import RunData, load_run

__all__ = ["RunData", "load_run", "write_audit_page", "write_report"]
