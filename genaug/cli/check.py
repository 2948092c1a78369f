"""``genaug check``: a recipe and all of its data, every problem at once, without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from genaug.cli.complete import assignments, recipes

if TYPE_CHECKING:
    from genaug.labels import LabelSpace
    from genaug.models import ModelCheck
    from genaug.recipe import BuildContext, Recipe
    from genaug.sources.survey import Survey


def inspect(recipe: Recipe) -> dict[str, Any]:
    """Read the data of a recipe completely, look for its models, and return what was found as JSON-like data."""
    from genaug.fit import misfits
    from genaug.models import check_models

    context, models = recipe.context(), check_models(recipe)
    _tell_sizes(recipe, context, models)
    report: dict[str, Any] = {
        "recipe": recipe.config.name,
        "data": None,
        "conditions": None,
        "models": models.problems,
        "misfits": [],
        "notes": _missing_libraries(recipe) + models.notes,
    }
    if recipe.config.data is not None or not recipe.config.terms:  # `source` says what a recipe of neither kind lacks
        report["data"] = summarize(recipe.source(context).survey(), recipe.labels)
    if any(problem.startswith("conditions.") for problem in models.problems):
        report["notes"].append("conditions: not read, since their model cannot be used")
    elif recipe.config.conditions is not None:
        report["conditions"] = summarize(recipe.conditions(context).survey(), recipe.labels)
    parts = [part for part in (report["data"], report["conditions"]) if part]
    sound = [key for key in ("data", "conditions") if report[key] and not report[key]["problems"]]
    data = conditions = recipe.source(context) if "data" in sound else None
    if recipe.config.conditions is not None:
        conditions = recipe.conditions(context) if "conditions" in sound else None
    report["misfits"] = misfits(recipe, data=data, conditions=conditions)
    report["ok"] = not (models.problems or report["misfits"] or any(part["problems"] for part in parts))
    return report


def _tell_sizes(recipe: Recipe, context: BuildContext, models: ModelCheck) -> None:
    """Tell the sources what the generator resizes their masks to, if it says so and uses them."""
    from genaug.config import Options
    from genaug.recipe import check_options

    config, part = recipe.config, recipe.config.generator
    if part is None or models.problems:  # a size may depend on a model that cannot be used
        return
    _, options = check_options(recipe.registry, "generator", part.use, part.options, where="generator")
    seen_at = options.mask_size(models.at("generator")) if isinstance(options, Options) else None
    if config.conditions is not None:
        recipe.conditions(context).seen_at = seen_at
    if config.conditions is None or (seen_at is not None and "mask" in options.data_needs):
        recipe.source(context).seen_at = seen_at


def summarize(survey: Survey, labels: LabelSpace) -> dict[str, Any]:
    """Return the problems and the class table of one source as JSON-like data.

    Shares of pixels are of those that are not ignored; ``ignored_share`` and ``labelled_share`` are of all, and None
    without masks. Strokes are counted where the masks are scribbles, most of whose pixels are ignored; None elsewhere.
    ``lost_strokes`` are those of which nothing is left at the size that the generator sees them at, ``lost_masks`` the
    masks that lose the whole class; None where it does not say which size that is.
    """
    ignored, sparse = int(survey.pixels[labels.ignore_index]), survey.is_sparse(labels.ignore_index)
    total = int(survey.pixels.sum())
    classes = [
        {
            "id": i,
            "name": labels.names[i],
            "pixels": int(survey.pixels[i]),
            "share": int(survey.pixels[i]) / (total - ignored) if total > ignored else 0.0,
            "masks": int(survey.masks_with[i]),
            "masks_share": int(survey.masks_with[i]) / survey.masks if survey.masks else 0.0,
            "strokes": int(survey.strokes[i]) if sparse else None,
            "lost_strokes": None if survey.lost_strokes is None or not sparse else int(survey.lost_strokes[i]),
            "lost_masks": None if survey.lost_strokes is None else sum(i in ids for ids in survey.lost.values()),
        }
        for i in labels.ids
    ]
    return {
        "problems": [asdict(problem) for problem in survey.problems],
        "notes": [asdict(note) for note in survey.notes],
        "samples": survey.samples,
        "images": survey.images,
        "masks": survey.masks,
        "sizes": {f"{w}x{h}": count for (h, w), count in survey.sizes.most_common()},
        "classes": classes,
        "missing_classes": [c["id"] for c in classes if survey.masks and not c["masks"]],
        "ignored_share": ignored / total if total else None,
        "labelled_share": 1 - ignored / total if total else None,
        "sparse": sparse,
    }


def _missing_libraries(recipe: Recipe) -> list[str]:
    """Name libraries that the recipe's components need and this machine lacks; data can be checked all the same."""
    from genaug.registry import is_installed

    config = recipe.config
    parts = [("generator", config.generator), ("labeler", config.labeler)]
    parts += [("filter", part) for part in config.filters] + [("mixer", term.mixer) for term in config.terms]
    notes = []
    for kind, use in dict.fromkeys((kind, part.use) for kind, part in parts if part is not None):
        component = recipe.registry.component(kind, use)
        missing = [module for module in component.requires if not is_installed(module)]
        if missing:
            command = f"genaug[{component.extra}]" if component.extra else " ".join(missing)
            notes.append(f"{kind} {use} needs {', '.join(missing)} to run: pip install '{command}'")
    return notes


def _lines(report: dict[str, Any], *, every: bool) -> Iterator[str]:
    for part in ("data", "conditions"):
        if report[part] is not None:
            yield from _part_lines(part, report[part], every=every)
    if report["models"]:
        yield f"models that cannot be used ({len(report['models'])}):"
        yield from (f"  - {problem}" for problem in report["models"])
        yield ""
    if report["misfits"]:
        yield f"parts that do not fit ({len(report['misfits'])}):"
        yield from (f"  - {problem}" for problem in report["misfits"])
        yield ""
    yield from (f"note: {note}" for note in report["notes"])
    yield "The recipe and its data are sound." if report["ok"] else "There are problems; genaug changes no file."


def _part_lines(title: str, part: dict[str, Any], *, every: bool) -> Iterator[str]:
    sizes = list(part["sizes"].items())
    shown = ", ".join(f"{size} ({count})" for size, count in sizes[:3])
    more = f" and {len(sizes) - 3} other sizes" if len(sizes) > 3 else ""
    counts = f"{part['samples']} samples, {part['images']} images, {part['masks']} masks"
    yield f"{title}: {counts}" + (f"; width x height: {shown}{more}" if sizes else "")
    if part["masks"]:
        yield from _scribble_lines(part) if part["sparse"] else _class_lines(part)
    for kind in ("problems", "notes"):
        if part[kind]:
            yield f"{kind} ({len(part[kind])}):"
            yield from (line for remark in part[kind] for line in _remark_lines(remark, every=every))
    yield ""


def _remark_lines(remark: dict[str, Any], *, every: bool) -> Iterator[str]:
    """Yield one line, with every file below it if there are more than the line names and `every` is set."""
    from genaug.sources.survey import NAMED, Remark

    subjects = remark["subjects"]
    if len(subjects) <= NAMED:
        yield f"  - {Remark(**remark)}"
    elif every:
        headline = Remark(f"{remark['what']}: {len(subjects)}x", hint=remark["hint"])
        yield f"  - {headline}"
        yield from (f"      {subject}" for subject in subjects)
    else:
        yield f"  - {Remark(**remark)} All of them: --all."


def _class_lines(part: dict[str, Any]) -> Iterator[str]:
    width = max(len(c["name"]) for c in part["classes"])
    yield f"  {'id':>3}  {'class':<{width}}  {'pixels':>8}  {'masks':>7}"
    for c in part["classes"]:
        missing = "" if c["masks"] else "  never occurs"
        yield f"  {c['id']:>3}  {c['name']:<{width}}  {c['share']:>8.2%}  {c['masks']:>7}{missing}"
    yield f"  {part['ignored_share']:.2%} of all pixels are ignored"


def _scribble_lines(part: dict[str, Any]) -> Iterator[str]:
    """Yield the class table of masks that are mostly ignored: how much is labelled counts, and in how many strokes."""
    width, counted = max(len(c["name"]) for c in part["classes"]), part["classes"][0]["lost_strokes"] is not None
    heads = f"{'pixels':>10}  {'share':>8}  {'masks':>7}  {'of all':>6}  {'strokes':>8}"
    yield f"  {'id':>3}  {'class':<{width}}  {heads}" + f"  {'lost':>6}" * counted
    for c in part["classes"]:
        missing = "" if c["masks"] else "  never occurs"
        numbers = (
            f"{c['pixels']:>10,}  {c['share']:>8.2%}  {c['masks']:>7}  {c['masks_share']:>6.0%}  {c['strokes']:>8,}"
        )
        lost = f"  {c['lost_strokes']:>6,}" if counted else ""
        yield f"  {c['id']:>3}  {c['name']:<{width}}  {numbers}{lost}{missing}"
    strokes = sum(c["strokes"] for c in part["classes"])
    average = strokes / part["masks"]
    yield f"  scribbles: {part['labelled_share']:.2%} of all pixels are labelled, {average:.1f} strokes a mask"
    lost_strokes = sum(c["lost_strokes"] for c in part["classes"]) if counted else 0
    if lost_strokes:
        yield f"  lost: of {lost_strokes:,} of {strokes:,} strokes no pixel is left at the size of the images to make"


@click.command()
@click.argument("recipe", shell_complete=recipes)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...", shell_complete=assignments)
@click.option("--all", "every", is_flag=True, help="Name every file of every problem; --json always does.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, recipe: str, overrides: Sequence[str], every: bool, as_json: bool) -> None:
    """Validate RECIPE, read all of its data and look for the models it names, listing every problem.

    RECIPE is a file or the name of a ready recipe; KEY=VALUE changes one of its keys, e.g. generator.batch_size=2.
    Models are looked for on this machine, not loaded; whether the Hub has one is not checked. Exit code 1 when the data
    have problems, 2 when the recipe is wrong, names a model that cannot be used or parts that do not fit one another.

    Example: genaug check recipe.yaml --all
    """
    from genaug.recipe import load_recipe

    report = inspect(load_recipe(recipe, overrides))
    click.echo(json.dumps(report, indent=2) if as_json else "\n".join(_lines(report, every=every)))
    if not report["ok"]:
        ctx.exit(2 if report["models"] or report["misfits"] else 1)
