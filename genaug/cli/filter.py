"""``genaug filter``."""

from genaug.cli.stages import stage_command

command = stage_command(
    "filter",
    ["redo-filters"],
    """Let the recipe's filters judge every sample of a finished store.

    RECIPE is a file or the name of a ready recipe; KEY=VALUE overrides one of its keys. Samples are never changed or
    deleted: verdicts lie beside them. Goes on where an interrupted call stopped.

    Example: genaug filter recipe.yaml --redo-filters
    """,
)
