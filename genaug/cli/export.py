"""``genaug export``: a store, or a recipe's labelled data, in a format that other tools read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genaug.cli.complete import components
from genaug.errors import ConfigError
from genaug.hub.reference import is_reference

if TYPE_CHECKING:
    from genaug.export import SampleSet


@click.command()
@click.argument("source", metavar="SOURCE")
@click.argument("output", type=click.Path(path_type=Path), metavar="OUT")
@click.argument("options", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--to",
    "name",
    required=True,
    metavar="FORMAT",
    shell_complete=components("writer"),
    help="A writer; 'genaug plugins' lists them.",
)
@click.option("--data", is_flag=True, help="Export the recipe's labelled samples rather than its store.")
@click.option("--dry-run", is_flag=True, help="Check everything and say what would be written; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    source: str, output: Path, options: Sequence[str], name: str, data: bool, dry_run: bool, as_json: bool
) -> None:
    """Write the samples of a store into the folder OUT in another format.

    SOURCE is the folder that 'genaug run' or 'genaug generate' filled, hf-hub:datasets/ORG/NAME@REV, or a recipe. Of a
    store, what every filter keeps is written, with the masks that filters left. With --data, or a recipe that makes no
    samples, it is the recipe's labelled data, whatever their format. KEY=VALUE are options of the format. OUT appears
    when everything is written; a folder that is neither empty nor an earlier export is refused.

    Example: genaug export synthetic for_detectron2 --to coco-panoptic split=train
    """
    from genaug.config import override
    from genaug.export import build_writer, check_target, export
    from genaug.registry import default_registry

    what, dropped = _samples(source, data=data)
    writer = build_writer(name, override({}, options), what.labels, default_registry())
    if dry_run:
        report: dict[str, Any] = {"to": name, "samples": len(what), "synthetic": what.synthetic, "output": str(output)}
        report["replaced"] = check_target(output, what)
    else:
        report = export(what, writer, output, name=name)
    report |= {"dropped": dropped, "dry_run": dry_run}
    click.echo(json.dumps(report, indent=2, ensure_ascii=False) if as_json else "\n".join(_lines(report)))


def _samples(source: str, *, data: bool) -> tuple[SampleSet, int]:
    """Return what is to be exported, and how many samples of a store are left out."""
    from genaug.export import SampleSet
    from genaug.recipe import folder_or_recipe, load_recipe
    from genaug.sources import checked
    from genaug.store import SampleStore

    if is_reference(source) or folder_or_recipe(source) is not None:
        if data:
            raise ConfigError(f"{source} is no recipe", where="--data", allowed="a recipe")
        store = SampleStore.open(source)
    else:
        recipe = load_recipe(source)
        if data or recipe.config.generator is None:
            return SampleSet.of_source(checked(recipe.source()), recipe.labels, title=recipe.config.name), 0
        store = SampleStore.open(recipe.output)
    what = SampleSet.of_store(store)
    return what, len(store) - len(what)


def _lines(report: dict[str, Any]) -> Iterator[str]:
    left_out = f"; {report['dropped']} left out by filters" if report["dropped"] else ""
    yield f"export    {report['to']}: {report['samples']} samples{left_out}"
    size = (
        "nothing written (--dry-run)"
        if report["dry_run"]
        else f"{report['files']} files, {report['bytes'] / 1e6:.1f} MB"
    )
    yield f"output    {report['output']}: {size}{', replaces an earlier export' if report['replaced'] else ''}"
