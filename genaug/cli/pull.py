"""``genaug pull``: fetch an adapter or a store from the Hugging Face Hub."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

_GIB = 2**30


def _finite(_context: click.Context, _option: click.Parameter, value: float) -> float:
    if not math.isfinite(value * _GIB):  # a range lets "nan" through
        raise click.BadParameter(f"{value} is no size.")
    return value


@click.command()
@click.argument("repo", metavar="ORG/NAME[@REV]")
@click.argument("folder", metavar="[FOLDER]", required=False, type=click.Path(path_type=Path))
@click.option("--revision", metavar="REV", help="Branch, tag or commit; the same as @REV.")
@click.option(
    "--max-size",
    metavar="GIB",
    type=click.FloatRange(min=0),
    callback=_finite,
    default=32.0,
    show_default=True,
    help="Refuse more.",
)
@click.option(
    "--token", metavar="TOKEN", help="Better: HF_TOKEN or 'hf auth login', since other users may see a command line."
)
@click.option("--dry-run", is_flag=True, help="Ask the Hub what there is; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(as_json: bool, repo: str, folder: Path | None, max_size: float, **options: Any) -> None:
    """Fetch an adapter or a store from the Hugging Face Hub into FOLDER, by default one of its name here.

    A dataset may be named datasets/ORG/NAME. Only data are fetched, never pickles or code. FOLDER appears when all is
    there and was checked; the same command goes on after an interruption. To use an adapter without a folder of your
    own, write adapter: hf-hub:ORG/NAME@REV in the recipe.

    \b
    Example:
      genaug pull me/voc-matchmask@v1 adapter
    """
    from genaug.hub.pull import pull

    report = pull(repo, folder, max_bytes=int(max_size * _GIB), **options)
    click.echo(json.dumps(report, indent=2, ensure_ascii=False) if as_json else "\n".join(_lines(report)))


def _lines(report: dict[str, Any]) -> Iterator[str]:
    total = sum(file["bytes"] for file in report["files"])
    yield f"{report['type']:<9} {report['repo']} at {report['commit']}"
    yield f"files     {len(report['files'])}, {total / 1e6:.1f} MB"
    if report["skipped"]:
        yield f"left out  {len(report['skipped'])} of other types, e.g. {report['skipped'][0]}"
    if report.get("dry_run"):
        yield from (f"          {file['bytes']:>12,}  {file['path']}" for file in report["files"])
        yield "nothing was written"
    else:
        yield f"{'unchanged' if report['unchanged'] else 'folder'}    {report['folder']}"[:200]
