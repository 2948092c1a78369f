"""The record a plugin yields for each thing it provides: names and strings only, nothing imported."""

from __future__ import annotations

import re
from dataclasses import dataclass

from genaug.errors import PluginError

# What a name can be looked up as. `writer` is an export format; `base` gives the folder of a diffusion model that a
# package ships; `quickstart` a demonstration of one method on data that the package renders; `figures` a section of the
# quality report.
KINDS = ("generator", "filter", "labeler", "mixer", "source", "writer", "predictor", "base", "quickstart", "figures")

_NAME = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class Component:
    """Declares one component.

    Args:
        kind: One of `KINDS`.
        name: Lower-case words joined by hyphens; what recipes write after ``use:``.
        target: ``"package.module:Class"`` of the implementation; imported on first use only.
        config: ``"package.module:Model"`` of the pydantic model of its options, or None for no options. The
            module must be light: it is imported by ``genaug check``.
        summary: One sentence for ``genaug plugins``.
        requires: Import names that the target needs beyond genaug's own requirements.
        extra: The genaug extra (or pip requirement) that brings them.

    Raises:
        PluginError: A field does not have the form above.

    Example:
        >>> Component("filter", "relative", "genaug_matchmask.relative:RelativeFilter", summary="majority vote")
        ... # doctest: +ELLIPSIS
        Component(kind='filter', name='relative', ...)
    """

    kind: str
    name: str
    target: str
    config: str | None = None
    summary: str = ""
    requires: tuple[str, ...] = ()
    extra: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise PluginError(f"component kind {self.kind!r}", allowed=", ".join(KINDS))
        if not _NAME.fullmatch(self.name):
            raise PluginError(f"component name {self.name!r}", allowed="lower-case words joined by hyphens")
        for label, value in (("target", self.target), ("config", self.config)):
            if value is not None and not _TARGET.fullmatch(value):
                raise PluginError(
                    f"{label} {value!r}", where=f"{self.kind} {self.name}", allowed="'package.module:Object'"
                )
        if isinstance(self.requires, str) or not all(isinstance(module, str) for module in self.requires):
            raise PluginError(
                f"requires {self.requires!r}", where=f"{self.kind} {self.name}", allowed="a tuple of import names"
            )
