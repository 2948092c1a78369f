"""Which samples a recipe asks for and which of them are made together, decided before anything is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from genaug.engine.progress import bar
from genaug.errors import DataError
from genaug.interfaces import Generator
from genaug.rng import Rng
from genaug.sources.base import Source
from genaug.store.files import condition_hash
from genaug.types import Draw, Sample


def seed_of(rng: Rng, condition_id: str, k: int) -> int:
    """Return the seed of one sample; nothing else about a run enters it."""
    return rng.child("generate", condition_id, k).integer()


@dataclass(slots=True)
class Plan:
    """All draws of a recipe, numbered condition by condition: draw ``n`` is image ``n % K`` of condition ``n // K``.

    The plan does not depend on what is done already, on shards or on the machine, so a batch always has the same
    members. That is what makes a resumed run end with the bytes of an uninterrupted one even on hardware whose
    arithmetic depends on what else is in the batch.

    Args:
        ids: Condition ids in the source's order.
        hashes: `condition_hash` of each condition.
        per_condition: K.
        batches: Draw numbers that are made together.
        sizes: How many samples there will be of each ``(height, width)``, that of their condition, by first
            appearance.
        pixels: Pixels of all draws together, at the conditions' sizes.
    """

    ids: tuple[str, ...]
    hashes: list[str | None]
    per_condition: int
    batches: list[list[int]]
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    pixels: int = 0

    def __len__(self) -> int:
        return len(self.ids) * self.per_condition

    def key(self, number: int) -> str:
        """Return the key of draw `number`."""
        return f"{self.ids[number // self.per_condition]}_{number % self.per_condition}"

    def keys(self) -> list[str]:
        """Return all keys in canonical order."""
        return [self.key(number) for number in range(len(self))]


def make_plan(
    source: Source,
    generator: Generator,
    rng: Rng,
    *,
    visit: Callable[[Sample], None] | None = None,
    outlines: bool = False,
) -> Plan:
    """Read every condition once and group the draws into batches of one size.

    Args:
        source: The conditions.
        generator: Says which draws may share a batch, how many may, and how many samples a condition gets. It need not
            be prepared.
        rng: Root of the recipe's streams.
        visit: Called with every condition, in order.
        outlines: Read no more of the conditions than a preview may (`Source.outline`); of `Plan.hashes` some may lack.

    Raises:
        DataError: A condition cannot be read, or its id cannot be a file name.
    """
    ids, load = tuple(source.ids()), source.outline if outlines else source.load
    count, largest = generator.samples_per_condition, generator.batch_size
    plan = Plan(ids, [], count, [])
    waiting: dict[tuple[int, int], list[int]] = {}
    for position, condition in enumerate(bar(_conditions(load, ids), "reading conditions", total=len(ids))):
        if visit is not None:
            visit(condition)
        plan.hashes.append(condition_hash(condition))
        plan.sizes[condition.size] = plan.sizes.get(condition.size, 0) + count
        plan.pixels += count * condition.size[0] * condition.size[1]
        for k in range(count):
            size = generator.size_of(Draw(condition, k, seed_of(rng, condition.id, k)))
            waiting.setdefault(size, []).append(position * count + k)
    for numbers in waiting.values():
        plan.batches += [numbers[i : i + largest] for i in range(0, len(numbers), largest)]
    return plan


def _conditions(load: Callable[[str], Sample], ids: Sequence[str]) -> Iterator[Sample]:
    for condition_id in ids:
        condition = load(condition_id)
        if condition.id != condition_id or condition_id.startswith("."):
            found = f"sample {condition.id!r} where {condition_id!r} was asked for"
            if condition.id == condition_id:
                found = f"the id {condition_id!r} starts with a dot"
            raise DataError(found, where="conditions", hint="Ids become file names: rename the file")
        yield condition
