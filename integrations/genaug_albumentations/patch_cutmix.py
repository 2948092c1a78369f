"""Patches of labelled images, where a teacher is least sure (UPC) or anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from genaug.config import validate
from genaug.errors import ConfigError, SampleError
from genaug.rng import Rng
from genaug.types import Image, Mask
from genaug_albumentations.arguments import METADATA_KEY, metadata
from genaug_albumentations.host import BaseTransformInitSchema
from genaug_albumentations.replacement import Change, Replacement, described, mask_ids
from genaug_upc.config import UpcOptions
from genaug_upc.offline import mix_arrays

_WHERE = "PatchCutMix"


class PatchCutMix(Replacement):
    """Replaces patches of an image by those of a labelled image at the same place, pixels and labels.

    With ``patches="uncertainty"`` these are the most uncertain ones, as UPC has it (see the method's page); the call
    gives a map, larger where the teacher is less sure, beside the image. Put it after crops and flips, which must move
    the map as well: the pipeline has to declare it as ``additional_targets={"uncertainty": "mask"}``. Afterwards the
    map is still that of the image before.

    Donors come with the call: ``genaug_metadata={"donors": [...]}``, any sequence of ``(image, mask)`` pairs or of
    tables with these two keys, of the image's size at this point of the pipeline. Only those that are drawn are asked
    for, so it may be a dataset of all labelled images.

    Args:
        patches: ``"uncertainty"`` or ``"random"``.
        grid: Patches per side; 4 (UPC, section 4.1).
        ks: How many patches are replaced, one of these at random; 2, 3 or 5 (UPC, section 4.1).
        ignore_index: Label of pixels that say nothing. A donor is drawn again, up to 8 times, if more than half of a
            patch that it should give is ignored.
        uncertainty_key: Name of the argument that has the map, float ``[H, W]``, 0 on padding.
        metadata_key: Name of the argument that has the donors.
        p: Probability.

    Targets:
        image (uint8, RGB), mask (integers). Boxes, key points and other additional targets are refused.

    Raises:
        ConfigError: An option out of range, or an additional target.
        SampleError: In a call: no mask, donors or map, another size, a map that the pipeline does not declare, or
            something else than image and mask.
    """

    __module__ = "genaug_albumentations"  # saved pipelines name the class by it

    class InitSchema(BaseTransformInitSchema):  # type: ignore[misc]  # noqa: D106
        patches: Literal["uncertainty", "random"]
        grid: int
        ks: Sequence[int]
        ignore_index: int
        uncertainty_key: str
        metadata_key: str

    def __init__(
        self,
        patches: Literal["uncertainty", "random"] = "uncertainty",
        grid: int = 4,
        ks: Sequence[int] = (2, 3, 5),
        ignore_index: int = 255,
        uncertainty_key: str = "uncertainty",
        metadata_key: str = METADATA_KEY,
        p: float = 0.5,
    ) -> None:
        super().__init__(p=p)
        self.patches, self.grid, self.ks, self.ignore_index = patches, grid, list(ks), ignore_index
        self.uncertainty_key, self.metadata_key = uncertainty_key, metadata_key
        score = "random" if patches == "random" else "entropy"
        given = {"grid": grid, "ks": tuple(ks), "score": score}
        self._options: UpcOptions = validate(UpcOptions, given, where=_WHERE)
        self._declared = False  # that the pipeline moves the map with the image

    @property
    def available_keys(self) -> set[str]:
        """What a strict pipeline may be called with."""
        return {*super().available_keys, self.metadata_key, self.uncertainty_key}

    def add_targets(self, additional_targets: Mapping[str, str]) -> None:
        """Take note of the uncertainty map, which other transforms move and this one reads; refuse all else."""
        kind = additional_targets.get(self.uncertainty_key)
        if kind not in (None, "mask"):
            hint = "As an image, colour changes would reach it"
            where = f"{_WHERE}, additional target {self.uncertainty_key!r}"
            raise ConfigError(f"declared as {kind!r}", where=where, allowed="'mask'", hint=hint)
        self._declared = self._declared or kind == "mask"
        super().add_targets({name: kind for name, kind in additional_targets.items() if name != self.uncertainty_key})

    def _change(self, image: Image, mask: Mask, data: Mapping[str, Any], generator: np.random.Generator) -> Change:
        donors = metadata(data, self.metadata_key, "donors", where=_WHERE, what="donors")
        if not isinstance(donors, Sequence) and not (hasattr(donors, "__len__") and hasattr(donors, "__getitem__")):
            found = f"donors are a {type(donors).__name__}"
            raise SampleError(found, where=_WHERE, allowed="a sequence of (image, mask)")
        uncertainty = np.zeros(mask.shape, np.float32) if self.patches == "random" else self._map(data)
        (mixed,) = mix_arrays(
            image,
            mask,
            uncertainty,
            _Donors(donors),
            rng=Rng(int(generator.integers(2**63))),
            options=self._options,
            ignore_index=self.ignore_index,
        )
        return Change(mixed.image[mixed.pasted], mixed.mask[mixed.pasted], mixed.pasted)

    def _map(self, data: Mapping[str, Any]) -> np.ndarray:
        name = self.uncertainty_key
        given = data.get(name)
        if given is None:
            hint = f"Call the pipeline with {name}=..., or set patches='random'"
            raise SampleError("no uncertainty map", where=_WHERE, hint=hint)
        if not isinstance(given, np.ndarray) or given.dtype.kind != "f" or given.ndim not in (2, 3):
            raise SampleError(f"the uncertainty map is {described(given)}", where=_WHERE, allowed="floats [H, W]")
        if not self._declared:
            hint = f"Make the pipeline with additional_targets={{{name!r}: 'mask'}}"
            raise SampleError(f"crops and flips would not move {name!r} with the image", where=_WHERE, hint=hint)
        return given[..., 0] if given.ndim == 3 else given


class _Donors(Sequence[tuple[Image, Mask]]):
    """Donors as pairs of image and uint8 mask, converted when asked for."""

    def __init__(self, given: Any) -> None:
        self._given = given

    def __len__(self) -> int:
        return len(self._given)

    def __getitem__(self, number: Any) -> Any:
        donor, where = self._given[number], f"{_WHERE}, donor {number}"
        if isinstance(donor, Mapping):
            donor = donor.get("image"), donor.get("mask")
        if not isinstance(donor, tuple | list) or len(donor) != 2:
            raise SampleError(f"a {type(donor).__name__}", where=where, allowed="(image, mask), or a table of both")
        return donor[0], mask_ids(donor[1], where=where)
