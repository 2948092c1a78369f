"""What is to be published: files by their place in the repository, ready before the Hub is asked for anything."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from genaug.config import Options, validate
from genaug.errors import ConfigError
from genaug.hub.errors import HubError
from genaug.hub.listing import clashes, is_wanted, name_errors, size_errors
from genaug.hub.places import machine_paths
from genaug.hub.reference import RepoType
from genaug.hub.shards import Packed

#: What one message lists.
_NAMED = 5


class Figure(Options):
    """A measured number and how to measure it again."""

    name: str = Field(min_length=1, description="What was measured, on which data.")
    value: str | int | float = Field(description="The result.")
    command: str = Field(min_length=1, description="The command that made it.")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user decides about a publication.

    Args:
        license: One of `genaug.hub.licenses.LICENSES`.
        base: Public name of an adapter's base model, where the adapter knows it by a folder of this machine.
        base_revision: Its revision.
        tags: Of the card, beside genaug's own.
        figures: For the card.
        pictures: Whether pictures go along. Those of an adapter show labelled images.
    """

    license: str
    base: str | None = None
    base_revision: str | None = None
    tags: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    pictures: bool = True


@dataclass(frozen=True, slots=True)
class Parcel:
    """A repository's content.

    Args:
        type: Of the repository.
        files: Place in the repository -> file of this machine, bytes, or what is packed when it is sent.
        owned: What names begin with that only a push of genaug wrote; further such files on the Hub go.
        about: What the report says of it.
        notes: What the user should know before it is public.
    """

    type: RepoType
    files: Mapping[str, Path | bytes | Packed]
    owned: tuple[str, ...]
    about: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def size_of(content: Path | bytes | Packed) -> int:
    """Return the length of a file or of bytes; of what is packed, that of its pictures."""
    if isinstance(content, Packed):
        return content.size
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def check_fetchable(parcel: Parcel, where: str, *, beside: Collection[str] = ()) -> None:
    """Refuse to publish what `genaug pull` refuses or leaves behind, as that judges it.

    Args:
        parcel: What is to be published.
        where: How messages name it.
        beside: Names of other files that the repository holds.

    Raises:
        HubError: There is such; its files are named.
    """
    sizes = {name: size_of(content) for name, content in parcel.files.items()}
    shards = [content for content in parcel.files.values() if isinstance(content, Packed)]
    packed = [name for shard in shards for _, places in shard.rows for name in places.values()]
    together = [*sizes, *filter(is_wanted, beside)]
    errors = chain(
        name_errors([*sizes, *packed, *beside], where),
        clashes(together, where),
        clashes(packed, where),
        size_errors(sizes, where),
    )
    found = [error.found for error in errors]
    found += [f"{name!r}, which is hidden or of another type" for name in (*sizes, *packed) if not is_wanted(name)]
    if found:
        more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise HubError(
            f"'genaug pull' would refuse it: {'; '.join(found[:_NAMED])}{more}",
            where=where,
            allowed='names without \\ : * ? " < > | and control characters, not hidden, different in more than case',
            hint="Rename these. A sample is named after the file it is made from: rename that and make the store again",
        )


def read_figures(path: Path) -> tuple[Figure, ...]:
    """Read a YAML or JSON file with a list of ``{name, value, command}``.

    Raises:
        ConfigError: It cannot be read, a figure has no command, or a command holds a path of this machine.
    """
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from None
    if not isinstance(data, list) or not all(isinstance(item, Mapping) for item in data):
        raise ConfigError("no list of figures", where=str(path), allowed="[{name: ..., value: ..., command: ...}]")
    figures = tuple(validate(Figure, item, where=f"{path.name}.{i}") for i, item in enumerate(data))
    if found := machine_paths([figure.model_dump() for figure in figures]):
        hint = "Write the command as somebody else would run it"
        raise ConfigError(f"{found[0]!r} holds a path of this machine", where=str(path), hint=hint)
    return figures


def inside(folder: Path, path: Path) -> Path:
    """Return `path` if it lies in `folder` after all links are followed.

    Raises:
        ConfigError: A link leads out of the folder; what it leads to was never meant to be published.
    """
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ConfigError("a link that leads out of the folder", where=str(path), hint="Put the file itself there")
    return path
