"""The files of a saved ScribbleGen adapter, as far as they can be read without torch."""

from __future__ import annotations

from genaug_diffusion.adapter_folder import AdapterFormat
from genaug_scribblegen.config import ScribbleGenOptions

#: The sub-folder is a plain diffusers model.
CONTROLNET = "controlnet"
WEIGHTS = f"{CONTROLNET}/diffusion_pytorch_model.safetensors"
CONTROLNET_CONFIG = f"{CONTROLNET}/config.json"
NULL = "null_condition.safetensors"

FORMAT = AdapterFormat(
    method="scribblegen",
    version=ScribbleGenOptions.adapter_format,
    required=(WEIGHTS, CONTROLNET_CONFIG, NULL),
    hashes={WEIGHTS: "weights_sha256", CONTROLNET_CONFIG: "controlnet_config_sha256", NULL: "null_condition_sha256"},
    keys=frozenset({
        "base", "base_fingerprint", "labels", "hint", "null_shape", "weights_sha256", "controlnet_config_sha256",
        "null_condition_sha256",
    }),
    more=frozenset({"prompt", "class_names", "null_learned", "resolution", "size_mode", "sampler"}),
)  # fmt: skip
