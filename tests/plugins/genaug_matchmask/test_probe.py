"""Gradient Probe: what the scores are, what they do not depend on, and the regex that comes out."""

from __future__ import annotations

import json
import re

import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

from genaug import Registry, Rng
from genaug.errors import ConfigError
from genaug.interfaces import Probeable
from genaug_diffusion.config import TrainingOptions
from genaug_diffusion.testing import make_pipeline
from genaug_matchmask.adapter import CRITICAL_LAYERS
from genaug_matchmask.config import MatchMaskOptions
from genaug_matchmask.generator import MatchMaskGenerator
from genaug_matchmask.probe import ProbeResult, epoch_rows, layer_type, layers_regex, probe
from genaug_matchmask.task import LayoutTask


@pytest.fixture
def generator(base_folder, labels) -> MatchMaskGenerator:
    options = MatchMaskOptions(base=str(base_folder), training=TrainingOptions(batch_size=4))
    made = MatchMaskGenerator(options, registry=Registry([]))
    made.load_base(labels)
    return made


@pytest.fixture
def task(generator, samples) -> LayoutTask:
    return LayoutTask(
        generator.pipe, generator.conditioner, samples, resolution=64, flips=False,
        scheduler=generator.training_scheduler,
    )  # fmt: skip


def test_one_sgd_step_scores_lr_times_gradient_over_norm(task, generator) -> None:
    unet = generator.pipe.unet
    one = {"epochs": 1, "batch_size": 4, "rng": Rng(0)}
    stepped = probe(task, unet, mode="finetune", optimizer="sgd", learning_rate=0.5, **one)
    summed = probe(task, unet, mode="gradient", **one)
    assert (stepped.optimizer, summed.optimizer) == ("sgd", "none")
    assert set(stepped.scores) == set(summed.scores)
    for name, (score,) in summed.scores.items():
        # float32 weights near 1 cannot show a change below 1e-7 of their norm
        assert stepped.scores[name][0] == pytest.approx(0.5 * score, rel=2e-2, abs=1e-6), name


def test_scores_equal_autograd_by_hand(task, generator) -> None:
    unet = generator.pipe.unet
    result = probe(task, unet, mode="gradient", epochs=1, batch_size=2, rng=Rng(3))
    from genaug_matchmask.probe import _rectify

    _rectify(unet)
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v.weight"
    weight = unet.get_parameter(name).requires_grad_(True)
    total = torch.zeros_like(weight)
    for rows in epoch_rows(task, 0, 2, Rng(3)):
        total += torch.autograd.grad(task.losses(unet, rows).mean(), weight)[0]
    assert result.scores[name][0] == pytest.approx(float(total.norm() / weight.detach().norm()), rel=1e-4)


def test_the_model_is_itself_again(task, generator, probe_unet) -> None:
    before = probe_unet(make_pipeline().unet)
    probe(task, generator.pipe.unet, mode="finetune", epochs=2, batch_size=2, rng=Rng(0), learning_rate=1e-3)
    assert torch.equal(probe_unet(generator.pipe.unet), before)
    assert not any(p.requires_grad for p in generator.pipe.unet.parameters())
    assert all(p.grad is None for p in generator.pipe.unet.parameters())


def test_an_epoch_holds_every_sample_once(task) -> None:
    batches = epoch_rows(task, 0, 3, Rng(1))
    assert sorted(r.index for rows in batches for r in rows) == [0, 1, 2, 3]
    assert [len(rows) for rows in batches] == [3, 1]
    assert batches == epoch_rows(task, 0, 3, Rng(1))
    assert batches != epoch_rows(task, 1, 3, Rng(1))


def test_the_critical_layers_come_out_as_the_papers_regex() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    linears = [n for n, m in unet.named_modules() if isinstance(m, torch.nn.Linear)]
    wanted = {n for n in linears if re.fullmatch(CRITICAL_LAYERS, n)}
    regex = layers_regex([f"{n}.weight" for n in sorted(wanted)], linears)
    assert {n for n in linears if re.fullmatch(regex, n)} == wanted
    assert len(wanted) == 88
    assert regex.count("|") == 6  # seven types, none listed one by one
    some = sorted(wanted)[3:50:7]
    assert {n for n in linears if re.fullmatch(layers_regex(some, linears), n)} == set(some)


def test_selection_needs_every_epoch() -> None:
    result = ProbeResult({"a": (3.0, 1.0), "b": (2.0, 3.0), "c": (1.0, 2.0), "d": (0.5, 0.1)}, "gradient", "none")
    assert result.select(0.5) == ["b"]
    assert result.select(1.0) == ["b", "a", "c", "d"]
    with pytest.raises(ConfigError, match="more than 0, at most 1"):
        result.select(0)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_q.weight", "attn2.to_q"),
        ("up_blocks.1.resnets.2.time_emb_proj.weight", "time_emb_proj"),
        ("time_embedding.linear_1.weight", "time_embedding.linear_1"),
        ("mid_block.attentions.0.proj_in.weight", "proj_in"),
    ],
)
def test_layer_types(name: str, kind: str) -> None:
    assert layer_type(name) == kind


def test_the_tool_writes_table_plot_and_regex(generator, samples, labels, tmp_path) -> None:
    assert isinstance(generator, Probeable)
    report = generator.probe(
        samples, tmp_path / "p", labels=labels, rng=Rng(0), mode="finetune", epochs=2, share=0.2,
        optimizer="adamw", learning_rate=1e-4,
    )  # fmt: skip
    written = json.loads((tmp_path / "p" / "probe.json").read_text())
    assert {k: written[k] for k in report} == json.loads(json.dumps(report))
    assert all(len(v) == 2 for v in written["scores"].values())
    with Image.open(tmp_path / "p" / "probe.png") as plot:
        assert plot.size[0] > 500
    table = (tmp_path / "p" / "probe.csv").read_text().splitlines()
    assert table[0] == "weight,type,selected,epoch 1,epoch 2"
    assert len(table) == 1 + len(written["scores"])
    assert sum(int(line.split(",")[2]) for line in table[1:]) == len(report["selected"])
    assert set(report["types"]) >= {"attn2.to_q", "time_emb_proj", "time_embedding.linear_1"}
    assert report["optimizer"] == "adamw"
    with pytest.raises(ConfigError, match=r"gradient\|finetune"):
        generator.probe(
            samples, tmp_path / "p", labels=labels, rng=Rng(0), mode="x", epochs=1, share=1, optimizer="sgd",
            learning_rate=1,
        )  # fmt: skip
