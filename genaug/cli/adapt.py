"""``genaug adapt``."""

from genaug.cli.stages import stage_command

command = stage_command(
    "adapt",
    [],
    """Teach the generator, and whatever else has to learn, from the labelled samples.

    RECIPE is a file or the name of a ready recipe; KEY=VALUE overrides one of its keys. Goes on where an interrupted
    call stopped; does nothing if an adapter for these options is there. On several GPUs:
    accelerate launch -m genaug adapt RECIPE

    Example: genaug adapt recipe.yaml generator.training.steps=2000
    """,
)
