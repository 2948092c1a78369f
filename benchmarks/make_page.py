"""Write ``docs/benchmarks.md``, and tables in the README and the docs, from ``benchmarks/results/``.

``--check`` only compares.
"""

from __future__ import annotations

import argparse
import ast
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from scipy import stats  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results"
#: Further figures of a row and their units: mIoU of the teacher, share of pixels with a pseudo-label, processor time.
MORE = {"teacher": "share", "kept": "share", "cost": "x"}
BEGIN, END = "<!-- begin: written by benchmarks/make_page.py -->", "<!-- end -->"


def load() -> dict[str, dict[str, Any]]:
    """Return the results by script name."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("*.json"))}


def intro(name: str) -> str:
    """Return what a benchmark's own docstring says, without its examples; a script's longer run is ``NAME_long``."""
    script = ROOT / f"benchmarks/{name.removesuffix('_long')}.py"
    text = ast.get_docstring(ast.parse(script.read_text("utf-8"))) or ""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n") if not part.startswith("    "))


def number(value: float | None, unit: str) -> str:
    """Return a figure for people: shares in percent, seconds in the unit that fits."""
    if value is None:
        return ""
    if unit == "share":
        return f"{100 * value:.1f} %"
    if unit == "s" and value < 1:
        return f"{1000 * value:.3g} ms"
    return f"{value:.4g} {unit}"


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the rows as a Markdown table; standard deviations and the keys of `MORE` show where there are any."""
    more = {key: unit for key, unit in MORE.items() if any(key in r for r in rows)}
    titles = ["what", "value", "spread", "baseline", "ratio", "runs", *more]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for r in rows:
        unit = r["unit"]
        spread = f"{number(r['min'], unit)} to {number(r['max'], unit)}"
        if "std" in r:
            spread = f"sd {100 * r['std']:.1f}; {spread}"
        ratio = "" if r["ratio"] is None else f"{r['ratio']:.2f}"
        cells = [r["name"], number(r["value"], unit), spread, number(r["baseline"], unit), ratio, r["runs"]]
        cells += [number(r.get(key), its_unit) for key, its_unit in more.items()]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def page(results: dict[str, dict[str, Any]]) -> str:
    """Return the whole page."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `benchmarks/make_page.py` from `benchmarks/results/`. A ratio above 1 means better than the",
        "baseline (faster, smaller, more accurate). Candidate and baseline took turns in one run; values are medians,",
        "those of mIoU means over seeds.",
    ]
    for name, result in results.items():
        machine = result["machine"]
        where = f"{machine['cpu']}, {machine['cores']} cores, {machine['gpu'] or 'no GPU'}, torch {machine['torch']}"
        lines += ["", f"## {name}", "", intro(name), "", *table(result["rows"]), ""]
        lines += [f"`{result['command']}` at commit {result['commit']}; {where}."]
    return "\n".join(lines) + "\n"


def readme_table(results: dict[str, dict[str, Any]]) -> str:
    """Return the README's table: MatchMask on rendered scenes; nothing before it was measured."""
    if "tiny_matchmask" not in results:
        return "Not measured yet at this version."
    result = results["tiny_matchmask"]
    seeds = len(result["seeds"])
    lines = [
        f"MatchMask for a small U-Net with {result['scenes']} labelled scenes that genaug renders itself, base model",
        f"`genaug-tiny`: mean IoU in percent on 300 unseen scenes, mean and standard deviation over {seeds} seeds of",
        f"{result['trainings']} trainings each, and Student's interval (`{result['command']}`).",
        "",
        "| trained on | mIoU | gain over real only | 95 % interval of the mean gain | seeds better |",
        "|---|---|---|---|---|",
    ]
    for r in result["rows"]:
        name, gain, interval, better = r["name"].removeprefix("mIoU, "), "", "", ""
        if name != "real only":
            mean, spread = statistics.mean(r["gains"]), statistics.stdev(r["gains"])
            gain = f"{100 * mean:+.1f} ± {100 * spread:.1f}"
            low, high = stats.t.interval(0.95, seeds - 1, loc=mean, scale=spread / seeds**0.5)
            interval = f"{100 * low:+.1f} to {100 * high:+.1f}"
            better = f"{sum(value > 0 for value in r['gains'])} of {seeds}"
        lines.append(f"| {name} | {100 * r['value']:.1f} ± {100 * r['std']:.1f} | {gain} | {interval} | {better} |")
    return "\n".join([*lines, *camvid_lines(results)])


def camvid_lines(results: dict[str, dict[str, Any]]) -> list[str]:
    """Return a sentence about CamVid, if it was measured."""
    if "camvid_matchmask" not in results:
        return []
    means = {r["name"].removeprefix("mIoU, "): 100 * r["value"] for r in results["camvid_matchmask"]["rows"]}
    real, both = means["real only"], means["real + synthetic, filter relative"]
    return [
        "",
        "On real street scenes (CamVid, 1/16 of the labels, a base model trained on a few hundred of its frames),",
        f"real + synthetic, relative, has {both:.1f} and real only {real:.1f}:",
        "[the base decides](docs/explanation/methods/matchmask.md).",
    ]


#: Results of self-training by name, and what the table calls their settings; CamVid's have several.
SELFTRAINING = {
    "tiny_selftraining": "rendered scenes, U-Net, 300 steps",
    "tiny_selftraining_long": "the same, 1,800 steps",
    "camvid_selftraining": "CamVid {share}, {model}, 300 steps",
    "camvid_selftraining_long": "CamVid {share}, {model}, 1,800 steps",
}


def selftraining_table(results: dict[str, dict[str, Any]]) -> str:
    """Return gains over the supervised arm, seed by seed, for every method and setting of self-training."""
    known = {name: title for name, title in SELFTRAINING.items() if name in results}
    columns: dict[str, dict[str, str]] = {}
    for name, title in known.items():
        seeds = results[name]["seeds"]
        for setting, arms in (settings(title, seeds) if "{" in title else {title: seeds}).items():
            columns[setting] = {arm: difference(runs, arms["supervised"]) for arm, runs in arms.items()}
    arms = list(dict.fromkeys(arm for column in columns.values() for arm in column))
    lines = [f"| trained with | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    lines += [f"| {arm} | {' | '.join(column.get(arm, '') for column in columns.values())} |" for arm in arms]
    return "\n".join([*lines, "", *(f"* `{results[name]['command']}`" for name in known)])


def difference(runs: list[dict[str, Any]], base: list[dict[str, Any]]) -> str:
    """Return mean and spread of what `runs` are above `base`, in points of mIoU; of `base` itself, its mIoU."""
    same = runs is base
    values = [100 * (run["miou"] - (0 if same else real["miou"])) for run, real in zip(runs, base, strict=True)]
    return f"{statistics.mean(values):{'' if same else '+'}.1f} ± {statistics.stdev(values):.1f}"


def settings(title: str, seeds: dict[str, Any]) -> dict[str, Any]:
    """Return runs by arm, by share of the labels and model."""
    names = {"unet": "U-Net", "segformer": "SegFormer"}
    parts = ((*key.split(), arms) for key, arms in seeds.items())
    return {title.format(share=share.replace("_", "/"), model=names[model]): arms for share, model, arms in parts}


def main() -> int:
    """Write or compare the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 if a file differs from what would be written")
    check = parser.parse_args().check
    results = load()
    files = {ROOT / "docs/benchmarks.md": page(results)}
    tables = {"README.md": readme_table, "docs/explanation/self-training-results.md": selftraining_table}
    for place, made in tables.items():
        before, rest = (ROOT / place).read_text("utf-8").split(BEGIN)
        files[ROOT / place] = f"{before}{BEGIN}\n{made(results)}\n{END}{rest.split(END)[1]}"
    stale = [path for path, text in files.items() if not path.is_file() or path.read_text("utf-8") != text]
    for path in stale:
        print(f"{path.relative_to(ROOT)} {'is out of date' if check else 'written'}")
        if not check:
            path.write_text(files[path], "utf-8")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
