"""``genaug report``: the gallery of a store; with ``--real``, its quality against real images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genaug.cli.complete import components
from genaug.errors import ConfigError
from genaug.hub.reference import is_reference, local_path

if TYPE_CHECKING:
    from genaug.labels import LabelSpace
    from genaug.report.opening import Place


@click.command()
@click.argument("store", metavar="STORE")
@click.argument("overrides", nargs=-1, metavar="[SECTION.KEY=VALUE]...")
@click.option("--limit", type=click.IntRange(min=1), default=24, show_default=True, help="Conditions in the gallery.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Folder to write to. Default: 'report' inside the store; of a plain folder, 'quality-report' here; of a store "
    "on the Hub none.",
)
@click.option("--title", help="Heading of the pages. Default: the recipe's name, or the folder's.")
@click.option(
    "--real", metavar="DATA", help="Compare with these real images: a folder, a recipe (its data) or a store."
)
@click.option("--labels", help="Class table of plain folders: a set's name or a file. Default: looked for beside them.")
@click.option(
    "--skip",
    multiple=True,
    metavar="SECTION",
    shell_complete=components("figures"),
    help="Leave this section of the quality report out.",
)
@click.option("--kept", is_flag=True, help="Compare only the samples that every filter keeps.")
@click.option("--samples", type=click.IntRange(min=2), help="Compare at most so many of each set, evenly spread.")
@click.option(
    "--group",
    metavar="REGEX",
    help="Images are not independent if this finds the same in their names (of a store: of their conditions), e.g. a "
    "video or place; its parentheses say what counts. Intervals get wider.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Processes that measure. Default: all cores.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the bootstrap.")
@click.option("--device", default="auto", show_default=True, help="Torch device of models that options name.")
@click.option("--dry-run", is_flag=True, help="Open everything and say what would be written; measure nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def command(store: str, overrides: Sequence[str], real: str | None, as_json: bool, **options: Any) -> None:
    """Write the gallery of a store and, against real images, its quality.

    STORE is the folder that 'genaug run' or 'genaug generate' filled, hf-hub:datasets/ORG/NAME@REV, or the recipe file;
    with the recipe, real images are shown beside the generated ones. Writes index.html, a single file to look at and
    pass on, and report.json.

    With --real also quality.html and quality.json: density, fidelity, duplicates and coverage against the real images,
    with intervals and flags. STORE may then be any folder of images, with or without masks. Sections that need a model
    appear when one is named, e.g. agreement.predictor=runs/baseline; 'genaug plugins' lists them as figures.

    Example: genaug report synthetic --real my_data/images --samples 500
    """
    reports: dict[str, Any] = {}
    lines: list[str] = []
    if is_reference(store):
        if options["output"] is None:
            found = f"{store!r} lies in the Hub's cache, which is no place for a report"
            raise ConfigError(found, where="command line", hint="Name a folder with --output")
        store = str(local_path(store))
    if real is not None and is_reference(real):
        real = str(local_path(real))
    if not Path(store).is_dir() or (Path(store) / "dataset.json").is_file() or real is None:
        reports |= _gallery(store, lines, **options)
    if real is not None:
        reports["quality"] = _quality(store, real, overrides, lines, **options)
    elif overrides:
        raise ConfigError(f"{overrides[0]!r} without --real", where="command line", hint="Name real images to compare")
    click.echo(json.dumps(reports, indent=2, ensure_ascii=False) if as_json else "\n".join(lines))


def _gallery(
    store: str, lines: list[str], *, limit: int, output: Path | None, title: str | None, dry_run: bool, **_: Any
) -> Any:
    from genaug.recipe import folder_or_recipe, load_recipe
    from genaug.report import report as gallery
    from genaug.store import SampleStore

    recipe = load_recipe(store) if folder_or_recipe(store) is None else None
    opened = SampleStore.open(store if recipe is None else recipe.output)
    if dry_run:
        found = {"samples": len(opened)}
        return _plan(output or opened.path / "report", gallery.PAGE, gallery.FIGURES, lines, **found)
    report = gallery.write_report(opened, recipe, output=output, limit=limit, title=title)
    lines += [*gallery.summary_lines(report), "", f"gallery  {report['page']}", f"figures  {report['figures']}"]
    return report


def _quality(store: str, real: str, overrides: Sequence[str], lines: list[str], **options: Any) -> Any:
    from genaug.config import override
    from genaug.engine.device import resolve_device
    from genaug.recipe import BuildContext
    from genaug.registry import default_registry
    from genaug.report import quality
    from genaug.report.opening import find_place

    made, own = find_place(store, generated=True), find_place(real, generated=False)
    labels = _labels(made, own, options["labels"])
    device = resolve_device(options["device"]) if overrides else "cpu"  # no section has a model without options
    context = BuildContext(Path(), labels, default_registry(), device)
    sections = quality.build_sections(context, override({}, overrides), options["skip"])
    inside = made.path / "report" if made.kind == "store" else Path("quality-report")
    folder = options["output"] or inside
    synthetic = made.open(labels, kept=options["kept"], limit=options["samples"], by=options["group"])
    photos = own.open(labels, limit=options["samples"], by=options["group"])
    if options["dry_run"]:
        found = {"samples": len(synthetic.keys), "real": len(photos.keys), "sections": list(sections)}
        return _plan(folder, quality.PAGE, quality.FIGURES, lines, **found)
    report = quality.write_quality(
        synthetic,
        photos,
        sections,
        labels=labels,
        output=folder,
        title=options["title"] or f"Quality of {made.path.resolve().name}",
        workers=options["workers"],
        seed=options["seed"],
    )
    lines += [*([""] if lines else []), *quality.quality_lines(report), ""]
    lines += [f"page     {report['page']}", f"figures  {report['figures']}"]
    return report


def _plan(folder: Path, page: str, figures: str, lines: list[str], **found: Any) -> dict[str, Any]:
    """Return what a dry run reports: both files of a report, and what they would be made of."""
    lines += [f"would write  {folder / name}" for name in (page, figures)]
    return {**found, "page": str(folder / page), "figures": str(folder / figures), "dry_run": True}


def _labels(made: Place, own: Place, named: str | None) -> LabelSpace:
    """Return the class table: the one that was named, what a store or recipe brings along, or names found in a folder.

    Raises:
        ConfigError: There are masks but no class table.
    """
    from genaug.cli.names import find_names
    from genaug.labels import LabelSpace
    from genaug.report.opening import agree

    if named is not None:
        return LabelSpace.from_config(named)
    known = agree(made.labels, own.labels)
    if known is not None:
        return known
    for place in (own, made):
        found = find_names(place.path)
        if found is not None:
            ignore = 255 if found.ignore_index is None else found.ignore_index
            return LabelSpace(found.names, ignore, found.colors)
    if made.has_masks or own.has_masks:
        raise ConfigError("no class names were found", where=str(own.path), hint="Name a class table with --labels")
    return LabelSpace({0: "anything"})
