"""How many objects GroundingDINO finds in an image: SENSE's measure of density."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import torch

from genaug.labels import LabelSpace
from genaug.report.figures import Conclusion, Figures, Measured, Record, Statistic
from genaug.rng import Rng
from genaug.types import Sample
from genaug_quality.pretrained import image_processor, images_for, load, place

if TYPE_CHECKING:
    from genaug.recipe import BuildContext
    from genaug_quality.config import InstancesOptions

THRESHOLD = 0.35


class Instances(Figures):
    """Section ``instances``. Runs in one process, on `device`; needs transformers, not torchvision.

    Args:
        model: A folder of GroundingDINO as transformers saves it, or a Hub id.
        prompt: What to look for: words in small letters, each followed by a full stop.
        threshold: Least score of a detection.
        device: Torch device.
    """

    title = "Objects found"
    about = (
        "Detections of GroundingDINO per image. SENSE counts 11.5 in sparse and 22.2 in dense images, with a prompt "
        "and thresholds that are not published: compare counts of one setting only."
    )
    parallel = False
    ranked = ("instances",)

    def __init__(self, model: str, *, prompt: str, threshold: float = THRESHOLD, device: str = "cpu") -> None:
        self.model, self.prompt, self.threshold, self.device = model, prompt, threshold, device

    @classmethod
    def from_config(cls, options: InstancesOptions, context: BuildContext) -> Self:
        """Build from options."""
        prompt = options.prompt or prompt_of(context.labels)
        return cls(
            place(context.root, options.model), prompt=prompt, threshold=options.threshold, device=context.device
        )

    def statistics(self) -> Sequence[Statistic]:
        """Return the count."""
        return [Statistic("instances", "objects found per image", "instances", worse="lower", harm="sparser")]

    @cached_property
    def _loaded(self) -> tuple[Any, Any, Any]:
        from transformers import AutoModelForZeroShotObjectDetection, AutoTokenizer

        where = "instances.model"
        model = load(AutoModelForZeroShotObjectDetection, self.model, where=where).to(self.device).eval()
        tokens = load(AutoTokenizer, self.model, where=where)(self.prompt, return_tensors="pt").to(self.device)
        return model, image_processor(self.model, where=where), tokens

    def measure(self, samples: Sequence[Sample]) -> Sequence[Record]:
        """Count the queries whose best word scores above the threshold, as GroundingDINO's post-processing does."""
        model, processor, tokens = self._loaded
        records = []
        for sample in samples:  # one by one: what an image is padded with would change its detections a little
            with torch.inference_mode():
                logits = model(**images_for(processor, [sample.image]).to(self.device), **tokens).logits
            scores = logits.sigmoid().amax(-1)[0]
            records.append({"instances": float((scores > self.threshold).sum())})
        return records

    def conclude(self, synthetic: Measured, real: Measured, rng: Rng) -> Conclusion:  # noqa: ARG002
        """Record the setting, without which the counts mean nothing."""
        return Conclusion({"setting": {"model": self.model, "prompt": self.prompt, "threshold": self.threshold}})


def prompt_of(labels: LabelSpace) -> str:
    """Return the class names as GroundingDINO wants them: small letters, a full stop after each."""
    return " ".join(f"{name.strip().lower().replace('_', ' ')}." for name in dict.fromkeys(labels.names.values()))
