"""The CLIP score: how well an image fits its text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from genaug.labels import LabelSpace
from genaug.report.figures import Conclusion, Figures, Measured, Record, Statistic
from genaug.rng import Rng
from genaug.types import Sample
from genaug_quality.features import pooled
from genaug_quality.pretrained import image_processor, images_for, load, place

if TYPE_CHECKING:
    from genaug.recipe import BuildContext
    from genaug_quality.config import ClipOptions


class ClipScore(Figures):
    """Section ``clip``: ``100 max(cos(image, text), 0)`` (Hessel et al. 2021, as torchmetrics scales it).

    Runs in one process, on `device`; needs transformers, not torchvision.

    Args:
        model: A CLIP model of transformers: a folder or a Hub id.
        labels: Class table, for the names in `template`.
        prompt_key: Where a sample's meta has its text.
        template: Text of samples without one; ``{classes}`` are the names of the classes in the mask.
        device: Torch device.
    """

    title = "CLIP score"
    about = (
        "How well an image fits its text, 0 to 100: the prompt that it was made from, or one that names the classes of "
        "its mask. Scores of unlike texts do not compare. Texts beyond the model's length are cut."
    )
    parallel = False
    ranked = ("clip_score",)

    def __init__(
        self,
        model: str,
        *,
        labels: LabelSpace,
        prompt_key: str = "prompt",
        template: str = "a photo of {classes}",
        device: str = "cpu",
    ) -> None:
        self.model, self.labels, self.device = model, labels, device
        self.prompt_key, self.template = prompt_key, template

    @classmethod
    def from_config(cls, options: ClipOptions, context: BuildContext) -> Self:
        """Build from options."""
        return cls(
            place(context.root, options.model),
            labels=context.labels,
            prompt_key=options.prompt_key,
            template=options.template,
            device=context.device,
        )

    def statistics(self) -> Sequence[Statistic]:
        """Return the score."""
        return [Statistic("clip_score", "CLIP score", "clip_score", worse="lower")]

    @cached_property
    def _loaded(self) -> tuple[Any, Any, Any]:
        from transformers import AutoTokenizer, CLIPModel

        where = "clip.model"
        model = load(CLIPModel, self.model, where=where).to(self.device).eval()
        return model, image_processor(self.model, where=where), load(AutoTokenizer, self.model, where=where)

    def text_of(self, sample: Sample) -> str | None:
        """Return the text of a sample, None if it has neither a text nor a labelled pixel."""
        text = sample.meta.get(self.prompt_key)
        if isinstance(text, str) and text:
            return text
        names = (
            [] if sample.mask is None else [self.labels.names[i] for i in self.labels.ids if (sample.mask == i).any()]
        )
        return self.template.replace("{classes}", ", ".join(names)) if names else None

    def measure(self, samples: Sequence[Sample]) -> Sequence[Record]:
        """Score every image that has a text; NaN elsewhere."""
        model, processor, tokenizer = self._loaded
        length = model.config.text_config.max_position_embeddings
        records: list[Record] = []
        for sample in samples:
            text = self.text_of(sample)
            if text is None:
                records.append({"clip_score": np.nan, "cut": np.nan})
                continue
            tokens = tokenizer(text, return_tensors="pt", truncation=True, max_length=length).to(self.device)
            with torch.inference_mode():
                pixels = images_for(processor, [sample.image])["pixel_values"].to(self.device)
                image = pooled(model.get_image_features(pixel_values=pixels)).float()
                words = pooled(model.get_text_features(**tokens)).float()
            cosine = float(torch.nn.functional.cosine_similarity(image, words)[0])
            cut = len(tokenizer(text, truncation=False, verbose=False)["input_ids"]) > length
            records.append({"clip_score": 100 * max(cosine, 0.0), "cut": float(cut)})
        return records

    def conclude(self, synthetic: Measured, real: Measured, rng: Rng) -> Conclusion:  # noqa: ARG002
        """Record the setting, and how many texts were cut."""
        counts = {n: int(np.nansum(m.numbers("cut"))) for n, m in (("synthetic", synthetic), ("real", real))}
        notes = tuple(
            f"{count} texts of {name} images are longer than the model reads" for name, count in counts.items() if count
        )
        return Conclusion({"model": self.model, "texts_cut": counts}, notes=notes)
