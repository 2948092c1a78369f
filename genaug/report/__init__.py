"""The report of a store: a gallery to look at, figures to compare."""

from genaug.report.report import summary_lines, write_report

__all__ = ["summary_lines", "write_report"]
