"""``genaug run``."""

from genaug.cli.stages import stage_command

command = stage_command(
    None,
    ["repair", "redo-filters"],
    """Adapt if needed, generate, filter and report.

    RECIPE is a file or the name of a ready recipe; KEY=VALUE overrides one of its keys, e.g. generator.steps=20.
    Killed at any moment, the same command goes on where it stopped and ends with the same files. Exit code 1: the data
    have problems and nothing was written, or some samples failed, which the same command tries again.

    Example: genaug run recipe.yaml generator.images_per_mask=5 --dry-run
    """,
)
