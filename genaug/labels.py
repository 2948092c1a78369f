"""Class tables: ids need not be contiguous, the ignore index is always explicit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from genaug.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Color = tuple[int, int, int]
MAX_ID = 255


def default_color(class_id: int) -> Color:
    """Return the VOC bit-reversal colour of an id in 0..255: 256 distinct colours, 0 is black."""
    red = green = blue = 0
    for bit in range(7, -1, -1):
        red |= (class_id & 1) << bit
        green |= (class_id >> 1 & 1) << bit
        blue |= (class_id >> 2 & 1) << bit
        class_id >>= 3
    return red, green, blue


@dataclass(frozen=True, slots=True)
class LabelSpace:
    """Class ids, their names, and the id that means "do not train here".

    Args:
        names: id in 0..255 -> non-empty name. Two ids may share a name.
        ignore_index: id in 0..255 that no class uses; usually 255.
        colors: id -> RGB, for reading RGB masks and for pictures. Ids without one get `default_color` in pictures.

    Raises:
        ConfigError: Ids out of range, an ignore index that is a class, an empty name or table, colours of unknown
            ids or shared by two ids.
    """

    names: Mapping[int, str]
    ignore_index: int = 255
    colors: Mapping[int, Color] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.names:
            raise ConfigError("no classes", where="labels.names", allowed="at least one id: name")
        for class_id, name in self.names.items():
            _check_id(class_id, "labels.names")
            if not isinstance(name, str) or not name.strip():
                hint = "Quote it: YAML reads on, off, yes and no as true and false" if isinstance(name, bool) else None
                raise ConfigError(
                    f"class {class_id} is called {name!r}", where="labels.names", allowed="a name", hint=hint
                )
        _check_id(self.ignore_index, "labels.ignore_index")
        if self.ignore_index in self.names:
            raise ConfigError(
                f"{self.ignore_index} is also the class {self.names[self.ignore_index]!r}",
                where="labels.ignore_index",
                allowed="an id that no class uses",
                hint="Binary masks stored as 0 and 255 need another ignore index, e.g. 254",
            )
        seen: dict[Any, int] = {}
        for class_id, value in self.colors.items():
            if class_id not in self.names and class_id != self.ignore_index:
                raise ConfigError(f"a colour for id {class_id}, which has no name", where="labels.colors")
            color = tuple(value) if isinstance(value, list | tuple) else ()
            if len(color) != 3 or any(not isinstance(v, int) or not 0 <= v <= 255 for v in color):
                raise ConfigError(
                    f"colour {value!r} of id {class_id}", where="labels.colors", allowed="[r, g, b] of 0..255"
                )
            if color in seen:
                raise ConfigError(f"ids {seen[color]} and {class_id} share {color}", where="labels.colors")
            seen[color] = class_id
        object.__setattr__(self, "names", dict(sorted(self.names.items())))
        object.__setattr__(self, "colors", {i: tuple(c) for i, c in sorted(self.colors.items())})

    @property
    def ids(self) -> tuple[int, ...]:
        """Class ids, ascending. Channel ``c`` of a predictor's logits belongs to ``ids[c]``."""
        return tuple(self.names)

    def color(self, class_id: int) -> Color:
        """Return the colour that pictures use for an id; the ignore index is light grey unless given one."""
        if class_id in self.colors:
            return self.colors[class_id]
        return (224, 224, 224) if class_id == self.ignore_index else default_color(class_id)

    def colorize(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return uint8 ``[H, W, 3]``, the mask uint8 ``[H, W]`` in this table's colours."""
        import numpy as np

        return np.array([self.color(i) for i in range(256)], dtype=np.uint8)[mask]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; `from_config` reads it back."""
        data: dict[str, Any] = {
            "names": {str(i): n for i, n in self.names.items()},
            "ignore_index": self.ignore_index,
        }
        if self.colors:
            data["colors"] = {str(i): list(c) for i, c in self.colors.items()}
        return data

    @classmethod
    def from_config(cls, value: Any, *, root: Path | None = None) -> LabelSpace:
        """Read a class table as recipes write it.

        Args:
            value: The name of a set (see `named_sets`), the path of a YAML or JSON file (relative to `root`), a plain
                ``{id: name}`` table, or ``{names, ignore_index, colors}`` whose ``names`` is any of those.

        Raises:
            ConfigError: None of these, or the table is wrong.
        """
        if isinstance(value, LabelSpace):
            return value
        if isinstance(value, str):
            return cls._from_name(value, root)
        if not isinstance(value, Mapping | list):
            raise ConfigError(
                f"a {type(value).__name__}",
                where="labels",
                allowed="a set's name, a file, or a table of id: name",
            )
        if isinstance(value, list) or "names" not in value:
            return cls(_int_keys(value, "labels"))
        unknown = set(value) - {"names", "ignore_index", "colors"}
        if unknown:
            raise ConfigError(
                f"unknown key {sorted(map(str, unknown))[0]!r}",
                where="labels",
                hint=did_you_mean(str(sorted(map(str, unknown))[0]), ["names", "ignore_index", "colors"]),
            )
        names = value["names"]
        base = (
            cls._from_name(names, root)
            if isinstance(names, str)
            else cls(_int_keys(names, "labels.names"), ignore_index=_free_id(names))
        )
        colors = _int_keys(value["colors"], "labels.colors") if "colors" in value else base.colors
        ignore = value.get("ignore_index", base.ignore_index if isinstance(names, str) else 255)
        return cls(base.names, ignore, colors)

    @classmethod
    def _from_name(cls, name: str, root: Path | None) -> LabelSpace:
        if name in named_sets():
            text = resources.files("genaug").joinpath(f"data/{name}.yaml").read_text("utf-8")
            return cls.from_config(yaml.safe_load(text))
        path = (root or Path()) / name
        if path.suffix.lower() in {".yaml", ".yml", ".json"}:
            table = _read_table(path)
            if isinstance(table, str):  # a file that names another one, perhaps itself
                raise ConfigError(f"holds the text {table!r}", where=str(path), allowed="a table of id: name")
            try:
                return cls.from_config(table, root=path.parent)
            except ConfigError as error:
                where = f"{path}, {error.where}"
                raise ConfigError(error.found, where=where, allowed=error.allowed, hint=error.hint) from None
        raise ConfigError(
            f"no class table is called {name!r}",
            where="labels",
            hint=did_you_mean(name, named_sets()) + " Or name a .yaml or .json file",
        )


def named_sets() -> list[str]:
    """Return the names of the class tables that genaug ships."""
    folder = resources.files("genaug").joinpath("data")
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))


def _read_table(path: Path) -> Any:
    try:
        text = path.read_text("utf-8")
        return json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path), hint="Write a table of id: name") from error


def _check_id(value: Any, where: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_ID:
        raise ConfigError(f"id {value!r}", where=where, allowed="a whole number in 0..255 (masks are 8-bit)")


def _int_keys(table: Any, where: str) -> dict[int, Any]:
    """Turn ids written as text (JSON has no other keys) into numbers; a list counts from 0."""
    if isinstance(table, list):
        return dict(enumerate(table))
    if not isinstance(table, Mapping):
        raise ConfigError(f"a {type(table).__name__}", where=where, allowed="a table of id: value, or a list")
    result: dict[int, Any] = {}
    for key, value in table.items():
        try:
            number = int(key) if isinstance(key, str) else key
        except ValueError:
            raise ConfigError(f"key {key!r}", where=where, allowed="class ids, whole numbers in 0..255") from None
        if number in result:
            raise ConfigError(f"id {number} appears twice", where=where)
        result[number] = value
    return result


def _free_id(names: Any) -> int:
    """Return an id that is not in a raw table, so that a table using 255 can name its own ignore index."""
    used = set(_int_keys(names, "labels.names"))
    return next(i for i in range(MAX_ID, -1, -1) if i not in used) if len(used) < 256 else MAX_ID
