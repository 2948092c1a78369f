"""The adapter folder: bit-equal reload, PEFT and diffusers read it, anything damaged is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from genaug import LabelSpace
from genaug.errors import AdapterError
from genaug_diffusion.testing import make_pipeline
from genaug_matchmask.adapter import LTAdapter
from genaug_matchmask.adapter_files import FORMAT
from genaug_matchmask.checkpoint import load_adapter, save_adapter

ABOUT = {"labels": LabelSpace({1: "dog"}).to_dict(), "training": {"samples": 4, "steps": 7}}


def save(adapter: LTAdapter, folder: Path) -> Path:
    save_adapter(adapter, folder, base="some/base", revision="abc", about=ABOUT)
    return folder


def test_reload_is_bit_equal_and_equal_adapters_have_equal_bytes(tmp_path, randomize, probe_unet) -> None:
    unet = make_pipeline().unet
    adapter = randomize(LTAdapter(unet))
    folder = save(adapter, tmp_path / "a")
    expected = probe_unet(unet, probe_unet.layout)
    other = make_pipeline().unet
    again = load_adapter(other, folder, base="some/base")
    assert torch.equal(probe_unet(other, probe_unet.layout), expected)
    save(again, tmp_path / "b")
    for file in folder.iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "genaug_config.json",
    ]  # fmt: skip


def test_peft_and_diffusers_load_it_as_plain_lora(tmp_path, randomize, probe_unet) -> None:
    """With beta = 1 and no layout, the adapter *is* that LoRA."""
    unet = make_pipeline().unet
    adapter = randomize(LTAdapter(unet))
    with torch.no_grad():
        adapter.beta.weight.zero_()
        adapter.beta.bias.fill_(40.0)
    expected = probe_unet(unet)
    folder = save(adapter, tmp_path / "a")
    assert not torch.equal(expected, probe_unet(make_pipeline().unet))
    with_peft = PeftModel.from_pretrained(make_pipeline().unet, str(folder))
    torch.testing.assert_close(probe_unet(with_peft), expected, rtol=0, atol=1e-6)
    with_diffusers = make_pipeline().unet
    with_diffusers.load_lora_adapter(str(folder), weight_name="adapter_model.safetensors", prefix="base_model.model")
    torch.testing.assert_close(probe_unet(with_diffusers), expected, rtol=0, atol=1e-6)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("some/base", "abc")
    assert (config["r"], config["lora_alpha"], config["inference_mode"]) == (4, 4, True)


def test_another_base_is_one_line_not_forty_shapes(tmp_path) -> None:
    folder = save(LTAdapter(make_pipeline().unet), tmp_path / "a")
    other = make_pipeline(block_out_channels=(32, 96)).unet
    with pytest.raises(AdapterError) as caught:
        load_adapter(other, folder, base="other/base")
    assert "was made for 'some/base'; 'other/base' has another architecture" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_folders_are_refused_and_leave_the_unet_alone(tmp_path, probe_unet) -> None:
    unet = make_pipeline().unet
    before = probe_unet(unet)
    folder = save(LTAdapter(make_pipeline().unet), tmp_path / "a")
    weights, config = folder / "adapter_model.safetensors", folder / "genaug_config.json"
    good_weights, good_config = weights.read_bytes(), json.loads(config.read_text())

    def refused(message: str) -> None:
        with pytest.raises(AdapterError, match=message):
            load_adapter(unet, folder, base="some/base")
        assert torch.equal(probe_unet(unet), before)
        assert not any("lora" in n for n, _ in unet.named_modules())

    weights.write_bytes(good_weights[:1000])
    refused("damaged")
    # Without the hash that adapters record, as folders made before it: the tensors are looked at all the same.
    config.write_text(json.dumps({k: v for k, v in good_config.items() if k != "weights_sha256"}))
    refused("cannot be read")
    state = load_file(save(LTAdapter(make_pipeline().unet), tmp_path / "b") / "adapter_model.safetensors")
    state.pop("lt.beta.weight")
    save_file(state, weights)
    refused("misses 1 tensors")
    weights.write_bytes(good_weights)
    config.write_text(json.dumps({**good_config, "layers": good_config["layers"][::-1]}))
    refused("order differ")
    config.write_text(json.dumps({**good_config, "format": "lt-adapter/9"}))
    refused("newer genaug")
    config.write_text("{")
    refused("cannot be read")
    config.unlink()
    refused("no genaug_config.json")
    with pytest.raises(AdapterError, match="no such folder"):
        FORMAT.read(tmp_path / "nowhere")
