"""The table of CamVid on the page of the quality report says what the stored result says."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
UNITS = (", bits", ", nats", ", grey levels of 255")


def table(result):
    """Return the page's lines: flags of every arm, and its figures whose interval lies beside that of the real set."""
    lines = ["| images | flags | figures below the real ones | figures above them |", "|---|---|---|---|"]
    for arm, found in result["arms"].items():
        rows = [row for row in result["rows"] if row["name"].startswith(f"{arm}: ")]
        beside = [
            "; ".join(name(row) for row in rows if apart(row)) or "none"
            for apart in (
                lambda row: row["max"] < row["real_interval"][0],
                lambda row: row["min"] > row["real_interval"][1],
            )
        ]
        if rows:
            lines.append(f"| {arm} | {', '.join(found['flags']) or 'none'} | {' | '.join(beside)} |")
    return lines


def name(row):
    title = row["name"].partition(": ")[2]
    for unit in UNITS:
        title = title.removesuffix(unit)
    return title


def test_the_page_says_what_was_measured():
    result = json.loads((ROOT / "benchmarks/results/camvid_quality.json").read_text("utf-8"))
    page = (ROOT / "docs/how-to/quality-report.md").read_text("utf-8").splitlines()
    lines = table(result)
    start = page.index(lines[0])
    assert page[start : start + len(lines)] == lines, "Put this on the page:\n" + "\n".join(lines)
    assert page[start + len(lines)] == ""
