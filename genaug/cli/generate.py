"""``genaug generate``."""

from genaug.cli.stages import stage_command

command = stage_command(
    "generate",
    ["repair"],
    """Make every sample of the recipe that the store lacks.

    RECIPE is a file or the name of a ready recipe; KEY=VALUE overrides one of its keys. Goes on where an interrupted
    call stopped. Exit code 1: the data have problems, or some samples failed, which the same command tries again.

    Example: genaug generate recipe.yaml --shard 1/4 --device cuda:0
    """,
)
