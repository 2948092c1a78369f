"""Offline work: adapt, generate, filter, report, each stage resumable."""

from genaug.engine.run import STAGES, preview, run

__all__ = ["STAGES", "preview", "run"]
