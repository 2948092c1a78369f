"""Scribbles as hints for a ControlNet: a colour or a channel per class, and back without loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from genaug.errors import ConfigError, SampleError
from genaug.labels import MAX_ID, LabelSpace, default_color

Hint = Literal["rgb", "onehot"]


class HintCodec(ABC):
    """Class ids to hints and back.

    Args:
        ids: Class ids, not necessarily contiguous.
        ignore_index: Id of unlabelled pixels.
    """

    kind: Hint
    #: Channels of a hint.
    channels: int

    def __init__(self, ids: Sequence[int], ignore_index: int) -> None:
        self.ids, self.ignore_index = tuple(sorted(ids)), ignore_index
        self._sorted = torch.tensor(self.ids)
        self._ids = torch.tensor([*self.ids, ignore_index])

    def positions(self, masks: Tensor) -> Tensor:
        """Return int64 like `masks`: the place of every id in `ids`, ``len(ids)`` for unlabelled and foreign ids."""
        wanted = masks.long()
        places = self._sorted.to(masks.device)
        found = torch.searchsorted(places, wanted).clamp(max=len(places) - 1)
        return torch.where(places[found] == wanted, found, len(places))

    @abstractmethod
    def encode(self, masks: Tensor) -> Tensor:
        """Return hints float32 ``[B, C, H, W]`` in [0, 1] of integer masks ``[B, H, W]``, on their device."""

    @abstractmethod
    def decode(self, hints: Tensor) -> Tensor:
        """Return the class ids int64 ``[B, H, W]`` of what `encode` made.

        Raises:
            SampleError: A pixel holds what `encode` never makes; resized by anything but nearest neighbour, say.
        """

    def describe(self) -> dict[str, Any]:
        """Return what decides the hint, for ``genaug_config.json``."""
        return {"kind": self.kind, "channels": self.channels, "ids": list(self.ids), "unlabelled": self.ignore_index}


class RgbCodec(HintCodec):
    """A colour per class id: VOC's bit-reversal palette, 256 distinct colours, whatever colours the class table has.

    Unlabelled pixels have the colour of the ignore index: (224, 224, 192) for 255, black only if that is 0. `colors`
    holds red, green and blue (0 to 255) of every id and of the ignore index.

    Raises:
        ConfigError: An id outside 0..255.
    """

    kind = "rgb"
    channels = 3

    def __init__(self, ids: Sequence[int], ignore_index: int = MAX_ID) -> None:
        if len({*ids, ignore_index}) > MAX_ID + 1 or min(*ids, ignore_index) < 0 or max(*ids, ignore_index) > MAX_ID:
            raise ConfigError(
                f"{len(ids)} classes with ids up to {max(*ids, ignore_index)} as colours",
                where="generator.hint",
                allowed="ids in 0..255 with hint: rgb",
                hint="Set hint: onehot, which has a channel for every class",
            )
        super().__init__(ids, ignore_index)
        self.colors = {i: default_color(i) for i in (*self.ids, ignore_index)}
        self._colors = torch.tensor(list(self.colors.values()))
        codes, self._order = _codes(self._colors).sort()
        self._codes = codes

    def encode(self, masks: Tensor) -> Tensor:  # noqa: D102
        colors = (self._colors.float() / 255).to(masks.device)
        return colors[self.positions(masks)].movedim(-1, 1).contiguous()

    def describe(self) -> dict[str, Any]:
        """Return what decides the hint, its colours included, for those who draw one without genaug."""
        return {**super().describe(), "colors": {str(i): list(color) for i, color in self.colors.items()}}

    def decode(self, hints: Tensor) -> Tensor:  # noqa: D102
        codes = _codes((hints.movedim(1, -1) * 255).round().long())
        table = self._codes.to(hints.device)
        found = torch.searchsorted(table, codes.contiguous()).clamp(max=len(table) - 1)
        _refuse(table[found] != codes, "colours of no class")
        return self._ids.to(hints.device)[self._order.to(hints.device)[found]]


class OneHotCodec(HintCodec):
    """A channel per class in ascending order of ids, and a last one for unlabelled pixels; any number of classes."""

    kind = "onehot"

    def __init__(self, ids: Sequence[int], ignore_index: int = MAX_ID) -> None:
        super().__init__(ids, ignore_index)
        self.channels = len(self.ids) + 1

    def encode(self, masks: Tensor) -> Tensor:  # noqa: D102
        shape = (len(masks), self.channels, *masks.shape[1:])
        return torch.zeros(shape, device=masks.device).scatter_(1, self.positions(masks).unsqueeze(1), 1.0)

    def decode(self, hints: Tensor) -> Tensor:  # noqa: D102
        _refuse((hints.sum(1) != 1) | (hints.amax(1) != 1), "channels that are not one-hot")
        return self._ids.to(hints.device)[hints.argmax(1)]


def make_codec(kind: Hint, labels: LabelSpace) -> HintCodec:
    """Return the codec of a class table."""
    return (RgbCodec if kind == "rgb" else OneHotCodec)(labels.ids, labels.ignore_index)


def _codes(colors: Tensor) -> Tensor:
    """Return one number per colour of integers ``[..., 3]``."""
    red, green, blue = colors.unbind(-1)
    return (red << 16) | (green << 8) | blue


def _refuse(wrong: Tensor, what: str) -> None:
    if wrong.any():
        raise SampleError(
            f"{int(wrong.sum())} pixels with {what}", where="hint", hint="Resize hints by nearest neighbour only"
        )
