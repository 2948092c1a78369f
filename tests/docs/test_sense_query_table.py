"""The shares by class on SENSE's page are those of the benchmark's results."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ("threshold 0.95 on the score", *(f"K={k}, {s}" for k, s in [(8, "present"), (150, "present")]))
COLUMNS += tuple(f"K={k}, fp32" for k in (8, 19, 50))


def test_kept_shares_by_class() -> None:
    results = json.loads((ROOT / "benchmarks/results/query_support.json").read_text("utf-8"))
    figures, names = results["figures"], results["classes"]
    expected = [
        [name, f"{100 * figures[COLUMNS[0]]['shares'][i]:.1f}"]
        + [f"{100 * figures[column]['kept_by_class'][i]:.1f}" for column in COLUMNS]
        for i, name in enumerate(names)
    ]
    page = (ROOT / "docs/explanation/methods/sense.md").read_text("utf-8")
    table = page.split("| class | of all pixels |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in table] == expected
    assert not any(figures["K=150, fp32"]["kept_by_class"])
    (confidence,) = (row for row in results["rows"] if row["name"] == "confidence of its queries")
    assert f"{100 * confidence['min']:.1f} to {100 * confidence['max']:.1f} %" in page
