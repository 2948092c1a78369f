"""Which part of a run this process does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from genaug.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `index` of `count`, counted from 1: the batches whose number leaves ``index - 1`` modulo `count`.

    Args:
        index: 1..count.
        count: How many processes share the work.

    Raises:
        ConfigError: Out of range.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ConfigError(
                f"shard {self.index}/{self.count}", where="--shard", allowed="I/N with I from 1 to N, e.g. 1/4 to 4/4"
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def tag(self) -> str:
        """Part of file names: ``2-of-4``."""
        return f"{self.index}-of-{self.count}"

    def has(self, number: int) -> bool:
        """Return True if batch `number` (from 0) belongs to this shard."""
        return number % self.count == self.index - 1

    @classmethod
    def parse(cls, text: str) -> Shard | None:
        """Read ``I/N``; ``1/1`` is the whole run and gives None.

        Raises:
            ConfigError: Another form, or out of range.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if match is None:
            raise ConfigError(f"{text!r}", where="--shard", allowed="I/N with I from 1 to N, e.g. 1/4 to 4/4")
        shard = cls(int(match[1]), int(match[2]))
        return None if shard.count == 1 else shard

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Shard | None:
        """Find this process's part from a launcher's variables; None when there is one process only.

        ``RANK`` and ``WORLD_SIZE`` (torchrun and whatever imitates it), and ``SLURM_ARRAY_TASK_ID``, ``_COUNT``,
        ``_MIN`` and ``_STEP`` (a Slurm array). With both, each array task's processes divide that task's part.
        No process group is formed: shards share nothing but the folder.

        Raises:
            ConfigError: A variable is not a number, or out of range.
        """
        index, count = 0, 1
        if "SLURM_ARRAY_TASK_ID" in environment and "SLURM_ARRAY_TASK_COUNT" in environment:
            first = _number(environment, "SLURM_ARRAY_TASK_MIN", 0)
            step = max(1, _number(environment, "SLURM_ARRAY_TASK_STEP", 1))
            index = (_number(environment, "SLURM_ARRAY_TASK_ID", 0) - first) // step
            count = _number(environment, "SLURM_ARRAY_TASK_COUNT", 1)
        if "RANK" in environment and "WORLD_SIZE" in environment:
            size = _number(environment, "WORLD_SIZE", 1)
            index, count = index * size + _number(environment, "RANK", 0), count * size
        return None if count == 1 else cls(index + 1, count)


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{text!r}", where=f"environment variable {name}", allowed="a whole number") from None
