from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0

from genaug_matchmask.attention import RectifiedAttnProcessor

N, T, DIM = 24, 9, 16


def reference(
    attn: Attention, head: torch.nn.Linear, x: torch.Tensor, text: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Eqs. 2 and 5 written out: per image, per head, per pixel."""
    q, k, v = attn.to_q(x), attn.to_k(text), attn.to_v(text)
    size = q.shape[-1] // attn.heads
    out = torch.zeros_like(q)
    for b in range(x.shape[0]):
        for h in range(attn.heads):
            part = slice(h * size, (h + 1) * size)
            for n in range(x.shape[1]):
                scores = k[b, :, part] @ q[b, n, part] / size**0.5
                a = torch.sigmoid(head(x[b, n]))
                original = scores.softmax(0) @ v[b, :, part]
                rectified = scores.masked_fill(~mask[b, 0, n], float("-inf")).softmax(0) @ v[b, :, part]
                out[b, n, part] = a * original + (1 - a) * rectified
    return attn.to_out[0](out)


@pytest.fixture
def parts() -> tuple[Attention, RectifiedAttnProcessor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    attn = Attention(query_dim=DIM, cross_attention_dim=12, heads=2, dim_head=8)
    for parameter in attn.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.4
        parameter.requires_grad_(False)
    processor = RectifiedAttnProcessor(DIM)
    processor.alpha.weight.data = torch.randn(1, DIM, generator=generator)
    processor.requires_grad_(False)
    attn.set_processor(processor)
    x, text = torch.randn(2, N, DIM, generator=generator), torch.randn(2, T, 12, generator=generator)
    mask = torch.rand(2, 1, N, T, generator=generator) > 0.6
    mask[..., 0] = True
    return attn, processor, x, text, mask


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_equals_the_equations_written_out(parts, scale: float) -> None:
    attn, processor, x, text, mask = parts
    got = attn(x * scale, text, layout={str(N): mask})
    expected = reference(attn, processor.alpha, x * scale, text, mask)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * scale)


def test_without_a_layout_equals_diffusers_bit_for_bit(parts) -> None:
    attn, _, x, text, mask = parts
    plain = attn(x, text)
    everything = attn(x, text, layout={str(N): torch.ones_like(mask)})
    attn.set_processor(AttnProcessor2_0())
    assert torch.equal(plain, attn(x, text))
    assert torch.equal(everything, plain)


def test_half_a_batch_of_masks_conditions_the_second_half_only(parts) -> None:
    attn, _, x, text, mask = parts
    both = attn(x, text, layout={str(N): torch.cat([torch.ones_like(mask[:1]), mask[1:]])})
    half = attn(x, text, layout={str(N): mask[1:]})
    torch.testing.assert_close(half, both, rtol=0, atol=1e-6)
    assert torch.equal(half[0], attn(x, text)[0])


def test_at_alpha_zero_a_token_reaches_exactly_the_pixels_that_may_see_it(parts) -> None:
    attn, processor, x, text, mask = parts
    processor.alpha.weight.zero_()
    processor.alpha.bias.fill_(-1e4)
    layout = {str(N): mask}
    before = attn(x, text, layout=layout)
    for token in (0, 4):
        changed = text.clone()
        changed[:, token] += 1.0
        moved = (attn(x, changed, layout=layout) - before).abs().amax(-1) > 1e-6
        assert torch.equal(moved, mask[:, 0, :, token])


def test_permuting_pixels_and_their_masks_permutes_the_output(parts) -> None:
    attn, _, x, text, mask = parts
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    moved = attn(x[:, order], text, layout={str(N): mask[:, :, order]})
    torch.testing.assert_close(moved, attn(x, text, layout={str(N): mask})[:, order], rtol=1e-5, atol=1e-5)


def test_mean_pooling_uses_one_weight_per_image(parts) -> None:
    attn, processor, x, text, mask = parts
    processor.alpha_pool = "mean"
    got = attn(x, text, layout={str(N): mask})
    processor.alpha_pool = "token"
    weight, bias = processor.alpha.weight.clone(), processor.alpha.bias.clone()
    for b in range(2):  # a constant head whose output is this image's mean logit
        processor.alpha.weight.zero_()
        processor.alpha.bias.fill_(float((x[b] @ weight[0] + bias).mean()))
        torch.testing.assert_close(got[b], attn(x, text, layout={str(N): mask})[b], rtol=1e-5, atol=1e-5)


def test_a_layout_of_another_size_is_an_error(parts) -> None:
    attn, _, x, text, mask = parts
    with pytest.raises(KeyError, match="no masks for 24 pixels, only for 25"):
        attn(x, text, layout={"25": mask})
    with pytest.raises(ValueError, match="for 3 images, the batch has 2 rows"):
        attn(x, text, layout={str(N): torch.cat([mask, mask[:1]])})
