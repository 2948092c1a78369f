"""The LT-Adapter: rectified cross-attention, and LoRA whose strength depends on the timestep (MatchMask eqs. 5, 6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from genaug.errors import AdapterError
from genaug.rng import Rng
from genaug_matchmask.attention import AlphaPool, LayoutIgnoringProcessor, RectifiedAttnProcessor

#: The "critical" layers of the paper's Table 9, found by counting parameters: all cross-attention Linears, all
#: `time_emb_proj` and the time embedding (71.8 M of 859.5 M in Stable Diffusion 1.4; 88 Linears). Matched in full.
CRITICAL_LAYERS = r"(.*\.attn2\.(to_q|to_k|to_v|to_out\.0))|(.*\.time_emb_proj)|(time_embedding\.linear_[12])"


class LTAdapter:
    """Attaches the adapter to a UNet; `detach` restores the UNet bit for bit.

    The LoRA weights are plain PEFT weights: ``beta_i(t)`` multiplies the output of each ``lora_B`` in a hook, from the
    time embedding of the **frozen** base (two adapted layers produce the time embedding, so the adapted one would be
    circular). Hooks compose with schedulers, pipelines, gradient checkpointing and per-sample timesteps.

    At the start (B = 0, all heads zero) the adapted UNet equals the base without a layout.

    Args:
        unet: A diffusers ``UNet2DConditionModel``; its own weights are frozen.
        rank: LoRA rank; ``lora_alpha`` equals it, so that PEFT's scale is 1 as in eq. 6.
        target_modules: Regular expression over module names, matched in full.
        alpha_pool: See `RectifiedAttnProcessor`.
        name: PEFT adapter name.

    Raises:
        AdapterError: The UNet already has an adapter of this name, or no module matches.
    """

    def __init__(
        self,
        unet: Any,
        *,
        rank: int = 4,
        target_modules: str = CRITICAL_LAYERS,
        alpha_pool: AlphaPool = "token",
        name: str = "default",
    ) -> None:
        from peft import LoraConfig
        from peft.tuners.lora import LoraLayer

        if getattr(unet, "genaug_lt", None) is not None or name in getattr(unet, "peft_config", {}):
            raise AdapterError(f"the UNet already carries an adapter {name!r}", hint="Call detach() on it first")
        self.unet, self.name, self.rank, self.alpha_pool = unet, name, rank, alpha_pool
        self.lora_config = LoraConfig(
            r=rank,
            lora_alpha=rank,
            target_modules=target_modules,
            lora_dropout=0.0,
            bias="none",
            init_lora_weights=True,
        )
        unet.requires_grad_(False)
        try:
            # PEFT draws its initial weights from the global stream; `initialize` draws ours from an argument.
            with torch.random.fork_rng(devices=[]):
                unet.add_adapter(self.lora_config, name)
        except ValueError as error:
            unet.unload_lora()
            raise AdapterError(str(error), where="generator.target_modules") from error
        #: Names of the adapted Linears, in the order of beta's outputs.
        self.layers = [n for n, m in unet.named_modules() if isinstance(m, LoraLayer) and name in m.lora_A]
        embedding = unet.time_embedding.linear_2.out_features
        self.beta = nn.utils.skip_init(nn.Linear, embedding, len(self.layers), device=unet.device)  # type: ignore[no-untyped-call]
        nn.init.zeros_(self.beta.weight)
        nn.init.zeros_(self.beta.bias)
        # Registered on the UNet so that .to() and accelerate move it; the alpha heads follow as processors.
        unet.genaug_lt = self.beta
        self._scales: torch.Tensor | None = None
        self._install_processors()
        self._install_hooks()
        for parameter in self.parameters():
            # float32 whatever the base is: so that training can step it, and a reload gives the same bits.
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)

    def _install_processors(self) -> None:
        self._old_processors = dict(self.unet.attn_processors)
        self.alpha: dict[str, nn.Linear] = {}
        processors: dict[str, Any] = {}
        for key, old in self._old_processors.items():
            path = key.removesuffix(".processor")
            if path.endswith(".attn2"):
                new = RectifiedAttnProcessor(self.unet.get_submodule(path).query_dim, self.alpha_pool)
                processors[key] = new.to(self.unet.device)
                self.alpha[path] = new.alpha
            else:
                processors[key] = LayoutIgnoringProcessor(old)
        self.unet.set_attn_processor(processors)

    def _install_hooks(self) -> None:
        handles = [self.unet.register_forward_pre_hook(self._compute_scales, with_kwargs=True)]
        for index, layer in enumerate(self.layers):
            lora_b = self.unet.get_submodule(layer).lora_B[self.name]
            handles.append(lora_b.register_forward_hook(self._scale_hook(index)))
        self._handles = handles
        # Both would silently bake in beta = 1 or mix adapter weights into a base file.
        for method in ("fuse_lora", "save_pretrained"):
            setattr(self.unet, method, _refusal(method))

    # ------------------------------------------------------------------ forward

    def base_time_embedding(self, timesteps: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return the frozen base's time embedding ``[B, E]`` of timesteps ``[B]``."""
        embedding = self.unet.time_embedding
        x = self.unet.time_proj(timesteps).to(dtype)
        x = _base(embedding.linear_2)(embedding.act(_base(embedding.linear_1)(x)))
        result: torch.Tensor = x
        return result

    def scales(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Return ``beta`` (eq. 6) for timesteps ``[B]``: ``[B, layers]`` in (0, 1), in the order of `layers`."""
        dtype = _base(self.unet.time_embedding.linear_1).weight.dtype
        return torch.sigmoid(self.beta(self.base_time_embedding(timesteps, dtype).to(self.beta.weight.dtype)))

    def _compute_scales(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ARG002
        sample = args[0] if args else kwargs["sample"]
        timestep = args[1] if len(args) > 1 else kwargs["timestep"]
        timesteps = torch.as_tensor(timestep, device=sample.device).reshape(-1)
        # One row when all images share the timestep (sampling), one per image in training: both broadcast.
        self._scales = self.scales(timesteps)

    def _scale_hook(self, index: int) -> Callable[..., torch.Tensor]:
        def scale(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
            assert self._scales is not None  # the UNet's pre-hook ran
            column = self._scales[:, index].to(output.dtype)
            return output * column.view(-1, *[1] * (output.ndim - 1))

        return scale

    # ------------------------------------------------------------------ parameters

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Return everything trainable by the name it has on disk, in a fixed order."""
        found: dict[str, Any] = {}
        for layer in self.layers:
            module = self.unet.get_submodule(layer)
            found[f"base_model.model.{layer}.lora_A.weight"] = module.lora_A[self.name].weight
            found[f"base_model.model.{layer}.lora_B.weight"] = module.lora_B[self.name].weight
        for path, head in self.alpha.items():
            found[f"lt.alpha.{path}.weight"] = head.weight
            found[f"lt.alpha.{path}.bias"] = head.bias
        found["lt.beta.weight"] = self.beta.weight
        found["lt.beta.bias"] = self.beta.bias
        return found

    def parameters(self) -> list[nn.Parameter]:
        """Return everything trainable: LoRA, alpha heads, beta head."""
        return list(self.named_parameters().values())

    def initialize(self, rng: Rng) -> None:
        """Draw the start of a training: A uniform in ``+-1/sqrt(in)`` (PEFT's own rule), B and all heads zero."""
        with torch.no_grad():
            for name, parameter in self.named_parameters().items():
                if ".lora_A." in name:
                    bound = parameter.shape[1] ** -0.5
                    values = torch.rand(parameter.shape, generator=rng.child(name).torch()) * 2 * bound - bound
                    parameter.copy_(values)
                else:
                    parameter.zero_()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return float32 CPU copies of everything trainable."""
        return {n: p.detach().float().cpu().clone().contiguous() for n, p in self.named_parameters().items()}

    def load_state_dict(self, state: dict[str, torch.Tensor], *, where: str = "adapter") -> None:
        """Copy `state` in.

        Raises:
            AdapterError: A tensor is missing, unexpected, of another shape or not finite; nothing is changed then.
        """
        own = self.named_parameters()
        for problem, names in (("misses", own.keys() - state.keys()), ("has unexpected", state.keys() - own.keys())):
            if names:
                raise AdapterError(f"the adapter {problem} {len(names)} tensors, e.g. {min(names)!r}", where=where)
        for name, value in state.items():
            if value.shape != own[name].shape:
                raise AdapterError(
                    f"{name} has shape {list(value.shape)}", where=where, allowed=str(list(own[name].shape))
                )
            if not torch.isfinite(value).all():
                raise AdapterError(f"{name} holds NaN or infinity", where=where, hint="The adapter is damaged")
        with torch.no_grad():
            for name, value in state.items():
                own[name].copy_(value)

    def detach(self) -> None:
        """Remove the adapter; the UNet is the base again, bit for bit."""
        for handle in self._handles:
            handle.remove()
        for method in ("fuse_lora", "save_pretrained"):
            delattr(self.unet, method)
        self.unet.set_attn_processor(self._old_processors)
        # `delete_adapters` would leave the wrapped Linears behind.
        self.unet.unload_lora()
        del self.unet.genaug_lt


def _base(module: Any) -> Any:
    return getattr(module, "base_layer", module)


def _refusal(method: str) -> Callable[..., None]:
    def refuse(*args: Any, **kwargs: Any) -> None:  # noqa: ARG001
        raise AdapterError(
            f"unet.{method}() with an LT-Adapter attached",
            hint="Call the adapter's detach() first, or save the adapter itself",
        )

    return refuse
