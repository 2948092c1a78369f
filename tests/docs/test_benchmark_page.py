"""The pages and tables that come from ``benchmarks/results`` hold what is in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_pages_are_those_that_the_results_make() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/make_page.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"run benchmarks/make_page.py: {done.stdout}{done.stderr}"
