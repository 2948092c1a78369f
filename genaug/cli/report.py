"""``genaug report``: the gallery and the quality figures of a store."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("store", metavar="STORE")
@click.option("--limit", type=click.IntRange(min=1), default=24, show_default=True, help="Conditions to show.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="Folder to write to. Default: 'report' inside the store."
)
@click.option("--title", help="Heading of the page. Default: the recipe's name.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def command(store: str, limit: int, output: Path | None, title: str | None, as_json: bool) -> None:
    """Write the gallery and the quality figures of a store.

    STORE is the folder that 'genaug run' or 'genaug generate' filled, or the recipe file; with the recipe, real images
    are shown beside the generated ones. Writes index.html, a single file to look at and pass on, and report.json.
    """
    from genaug.recipe import load_recipe
    from genaug.report import summary_lines, write_report
    from genaug.store import SampleStore

    recipe = None if Path(store).is_dir() else load_recipe(store)
    opened = SampleStore.open(store if recipe is None else recipe.output)
    report = write_report(opened, recipe, output=output, limit=limit, title=title)
    if as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(summary_lines(report)))
        click.echo(f"\ngallery  {report['page']}\nfigures  {report['figures']}")
