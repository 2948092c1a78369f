from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel

from genaug import Rng
from genaug.errors import AdapterError
from genaug_matchmask.adapter import LTAdapter


def test_counts_of_stable_diffusion_1_4() -> None:
    """Table 9 of the paper: 859M in all, 0.7M in the adapter; 88 layers by the parameter count of the specification."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        total = sum(p.numel() for p in unet.parameters())
        adapter = LTAdapter(unet)
    named = adapter.named_parameters()
    lora = sum(p.numel() for n, p in named.items() if ".lora_" in n)
    alpha = sum(p.numel() for n, p in named.items() if ".alpha." in n)
    beta = sum(p.numel() for n, p in named.items() if ".beta." in n)
    assert (total, len(adapter.layers), len(adapter.alpha)) == (859_520_964, 88, 16)
    assert (lora, alpha, beta) == (607_744, 12_496, 112_728)
    assert lora + alpha + beta == 732_968


def test_starts_as_the_base_bit_for_bit(pipe, probe_unet) -> None:
    before = probe_unet(pipe.unet)
    adapter = LTAdapter(pipe.unet)
    adapter.initialize(Rng(0))
    assert torch.equal(probe_unet(pipe.unet), before)
    assert torch.equal(probe_unet(pipe.unet, {k: torch.ones_like(v) for k, v in probe_unet.layout.items()}), before)
    assert not torch.equal(probe_unet(pipe.unet, probe_unet.layout), before)


def test_detach_restores_the_base_and_leaves_nothing(pipe, randomize, probe_unet) -> None:
    before, modules = probe_unet(pipe.unet), [n for n, _ in pipe.unet.named_modules()]
    adapter = randomize(LTAdapter(pipe.unet))
    assert not torch.equal(probe_unet(pipe.unet, probe_unet.layout), before)
    adapter.detach()
    assert torch.equal(probe_unet(pipe.unet), before)
    assert [n for n, _ in pipe.unet.named_modules()] == modules
    assert not pipe.unet._forward_pre_hooks
    LTAdapter(pipe.unet)  # a second one can be attached


def test_a_batch_equals_its_rows_with_a_timestep_each(pipe, randomize, probe_unet) -> None:
    randomize(LTAdapter(pipe.unet))
    together = probe_unet(pipe.unet, probe_unet.layout)
    for i in range(2):
        alone = probe_unet(pipe.unet, probe_unet.layout, rows=slice(i, i + 1))
        torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-5)


def test_every_adapted_linear_follows_eq_6(pipe, randomize, probe_unet) -> None:
    """y = W x + beta_i(t) B A x, with beta from the frozen base's time embedding."""
    adapter = randomize(LTAdapter(pipe.unet), scale=0.3)
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name in adapter.layers:
        module = pipe.unet.get_submodule(name)
        module.register_forward_hook(lambda m, i, o, name=name: seen.__setitem__(name, (i[0].clone(), o.clone())))
    probe_unet(pipe.unet, probe_unet.layout)
    mlp = pipe.unet.time_embedding
    half = 16
    frequencies = torch.exp(-torch.log(torch.tensor(10000.0)) * torch.arange(half) / half)
    angles = probe_unet.steps[:, None] * frequencies
    sinusoid = torch.cat([angles.cos(), angles.sin()], 1)
    hidden = torch.nn.functional.silu(mlp.linear_1.base_layer(sinusoid))
    embedding = mlp.linear_2.base_layer(hidden)
    beta = torch.sigmoid(embedding @ adapter.beta.weight.T + adapter.beta.bias)
    assert set(seen) == set(adapter.layers)
    assert beta.std(0).mean() > 1e-3
    for index, name in enumerate(adapter.layers):
        module, (x, y) = pipe.unet.get_submodule(name), seen[name]
        scale = beta[:, index].view(-1, *[1] * (x.ndim - 1))
        a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
        expected = module.base_layer(x) + scale * (x @ a.T @ b.T)
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


def test_scale_zero_in_the_pipeline_call_switches_lora_off(pipe, randomize, probe_unet) -> None:
    before = probe_unet(pipe.unet)
    randomize(LTAdapter(pipe.unet))
    assert torch.equal(probe_unet(pipe.unet, scale=0.0), before)


def test_gradients_reach_every_weight_and_checkpointing_changes_none(pipe, randomize, probe_unet) -> None:
    adapter = randomize(LTAdapter(pipe.unet))
    pipe.unet.train()

    def gradients() -> list[torch.Tensor]:
        for p in adapter.parameters():
            p.grad = None
        loss = (
            pipe.unet(
                probe_unet.x, probe_unet.steps, probe_unet.text, cross_attention_kwargs={"layout": probe_unet.layout}
            )
            .sample.square()
            .mean()
        )
        loss.backward()
        return [p.grad.clone() for p in adapter.parameters()]

    plain = gradients()
    assert all(g.abs().max() > 0 for g in plain)
    pipe.unet.enable_gradient_checkpointing()
    assert all(torch.equal(a, b) for a, b in zip(plain, gradients(), strict=True))
    assert all(not p.requires_grad for n, p in pipe.unet.named_parameters() if "base_layer" in n)


def test_initialize_depends_on_its_argument_alone(pipe) -> None:
    adapter = LTAdapter(pipe.unet)
    adapter.initialize(Rng(1))
    first = adapter.state_dict()
    torch.rand(3)
    adapter.initialize(Rng(2))
    assert any(not torch.equal(first[n], v) for n, v in adapter.state_dict().items())
    adapter.initialize(Rng(1))
    assert all(torch.equal(first[n], v) for n, v in adapter.state_dict().items())
    a = first["base_model.model.time_embedding.linear_1.lora_A.weight"]
    assert a.abs().max() <= a.shape[1] ** -0.5
    assert a.std() > 0.3 * a.shape[1] ** -0.5


def test_attaching_leaves_the_global_random_state_alone(pipe) -> None:
    state = torch.get_rng_state()
    LTAdapter(pipe.unet)
    assert torch.equal(torch.get_rng_state(), state)


def test_refusals(pipe) -> None:
    with pytest.raises(AdapterError, match="target_modules"):
        LTAdapter(pipe.unet, target_modules="nothing_like_this")
    adapter = LTAdapter(pipe.unet)
    with pytest.raises(AdapterError, match="already carries"):
        LTAdapter(pipe.unet)
    with pytest.raises(AdapterError, match=r"unet.fuse_lora\(\) with an LT-Adapter attached"):
        pipe.unet.fuse_lora()
    with pytest.raises(AdapterError, match="detach"):
        pipe.unet.save_pretrained("nowhere")
    adapter.detach()
    assert callable(pipe.unet.save_pretrained)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: s.pop("lt.beta.bias"), "misses 1 tensors, e.g. 'lt.beta.bias'"),
        (lambda s: s.update(x=torch.zeros(1)), "has unexpected 1 tensors, e.g. 'x'"),
        (lambda s: s.update({"lt.beta.bias": torch.zeros(1)}), r"lt.beta.bias has shape \[1\]"),
        (lambda s: s["lt.beta.bias"].fill_(float("nan")), "lt.beta.bias holds NaN"),
    ],
)
def test_a_wrong_state_changes_nothing(pipe, randomize, damage, message: str) -> None:
    adapter = randomize(LTAdapter(pipe.unet))
    before, wrong = adapter.state_dict(), {n: v + 1 for n, v in adapter.state_dict().items()}
    damage(wrong)
    with pytest.raises(AdapterError, match=message):
        adapter.load_state_dict(wrong)
    assert all(torch.equal(before[n], v) for n, v in adapter.state_dict().items())


def test_compiles_once_for_all_timesteps(pipe, randomize, probe_unet) -> None:
    randomize(LTAdapter(pipe.unet))
    torch._dynamo.reset()
    compiled = torch.compile(pipe.unet, backend="aot_eager")
    for t in (10, 20, 981):
        steps = torch.tensor([t, t])
        torch.testing.assert_close(
            probe_unet(compiled, probe_unet.layout, t=steps), probe_unet(pipe.unet, probe_unet.layout, t=steps)
        )
