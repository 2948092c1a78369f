"""The files of a saved LT-Adapter, as far as they can be read without torch."""

from __future__ import annotations

from genaug_diffusion.adapter_folder import AdapterFormat
from genaug_matchmask.config import MatchMaskOptions

WEIGHTS, STARTING, PEFT_CONFIG = "adapter_model.safetensors", "starting_noise.safetensors", "adapter_config.json"

#: Adapters from before hashes were recorded have none.
FORMAT = AdapterFormat(
    method="matchmask",
    version=MatchMaskOptions.adapter_format,
    required=(WEIGHTS,),
    hashes={WEIGHTS: "weights_sha256", STARTING: "starting_noise_sha256"},
    keys=frozenset({"base", "base_fingerprint", "rank", "target_modules", "alpha_pool", "layers", "labels"}),
    more=frozenset({
        "prompt", "resolution", "size_mode", "mask_downsample", "overflow", "background", "sampler",
    }),
)  # fmt: skip
