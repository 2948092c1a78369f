"""Offline work: adapt, generate, filter, report, each stage resumable."""

from genaug.engine.run import STAGES, preview, run
from genaug.engine.together import adapt_together, launched_processes

__all__ = ["STAGES", "adapt_together", "launched_processes", "preview", "run"]
