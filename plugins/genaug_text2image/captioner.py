"""A vision-language model of transformers that describes one image at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image as PILImage

from genaug.errors import ConfigError
from genaug.types import Image
from genaug_diffusion.base import DTYPES
from genaug_text2image.config import CaptionOptions


class Captioner:
    """Any model that transformers loads as ``AutoModelForImageTextToText`` and whose processor has a chat template.

    Args:
        options: Model, dtype and lengths.
        root: Folder that a relative path refers to.
        device: Torch device.

    Raises:
        ConfigError: The model cannot be loaded, or has no chat template.
    """

    def __init__(self, options: CaptionOptions, *, root: Path | None = None, device: str = "cpu") -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self.options, self.device = options, device
        automatic = "bfloat16" if device.startswith("cuda") else "float32"
        self.dtype = DTYPES[automatic if options.dtype == "auto" else options.dtype]
        folder = (root or Path()) / Path(options.model).expanduser()
        name = str(folder) if folder.exists() else options.model
        where: dict[str, Any] = {"revision": options.revision, "local_files_only": folder.exists()}
        try:
            self.processor = AutoProcessor.from_pretrained(name, **where)
            model = AutoModelForImageTextToText.from_pretrained(name, dtype=self.dtype, use_safetensors=True, **where)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ConfigError(
                f"{options.model!r} could not be loaded: {error}",
                where="conditions.model",
                allowed="an image-text-to-text model with safetensors weights",
                hint="If the id is right, check the network, HF_HUB_OFFLINE and your access to the repository",
            ) from error
        if getattr(self.processor, "chat_template", None) is None:
            raise ConfigError(
                f"{options.model!r} has no chat template",
                where="conditions.model",
                allowed="an instruction-tuned model",
            )
        self.model = model.requires_grad_(False).eval().to(device)

    @torch.inference_mode()
    def caption(self, image: Image, instruction: str) -> str:
        """Return what the model says of an image uint8 ``[H, W, 3]``, in one line."""
        picture = PILImage.fromarray(image)
        side = self.options.max_side
        if side is not None and max(picture.size) > side:
            picture.thumbnail((side, side), PILImage.Resampling.BICUBIC)
        content = [{"type": "image", "image": picture}, {"type": "text", "text": instruction}]
        inputs = self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self.device, self.dtype)
        tokens = self.model.generate(**inputs, max_new_tokens=self.options.max_new_tokens, do_sample=False)
        said = tokens[:, inputs["input_ids"].shape[1] :]
        return " ".join(self.processor.batch_decode(said, skip_special_tokens=True)[0].split())
