"""Captions by a tiny random vision-language model that is built here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForImageTextToText,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from genaug.engine import preview
from genaug.errors import ConfigError, StoreError
from genaug.recipe import load_recipe
from genaug_text2image.captioner import Captioner
from genaug_text2image.captions import UNWRITTEN
from genaug_text2image.config import CaptionOptions

WORDS = ["a", "busy", "street", "with", "two", "cars", "and", "trees", "under", "grey", "sky"]
TEMPLATE = (
    "{% for m in messages %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("captioner")
    special = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS])}
    bare = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bare, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    vision = CLIPVisionConfig(
        image_size=16, patch_size=8, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2
    )
    text = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=3,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = LlavaForConditionalGeneration(
            LlavaConfig(vision_config=vision, text_config=text, image_token_index=4, image_seq_length=4)
        )
        network.lm_head.weight.data[: len(special)] = 0  # it can only say words
        network.lm_head.weight.data.mul_(20)
        # Let what is seen matter: random weights go on from the last word alone.
        attention = network.model.language_model.layers[0].self_attn
        attention.o_proj.weight.data.mul_(50)
        attention.v_proj.weight.data.mul_(50)
    network.generation_config.pad_token_id = 3
    network.save_pretrained(folder)
    LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        tokenizer=tokenizer, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture
def project(model, tmp_path) -> dict:
    generator = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for name in ("x", "y"):
        noise = generator.integers(0, 256, (24, 40, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(np.ones((24, 40), np.uint8)).save(tmp_path / "masks" / f"{name}.png")
    return {
        "labels": {1: "grey_sky"},
        "data": {"images": "images", "masks": "masks"},
        "conditions": {"format": "captions", "model": str(model), "max_new_tokens": 6, "max_side": 20},
        "generator": {"use": "text2image"},
    }


def captions(project: dict, root: Path):
    recipe = load_recipe(project, root=root)
    return recipe.conditions(recipe.context())


def test_captions_are_written_once_and_can_be_edited(project, tmp_path, monkeypatch) -> None:
    loads = []
    load = AutoModelForImageTextToText.from_pretrained
    monkeypatch.setattr(
        AutoModelForImageTextToText, "from_pretrained", lambda *a, **k: loads.append(1) or load(*a, **k)
    )
    source = captions(project, tmp_path)
    assert source.check() == []
    told = preview(load_recipe(project, root=tmp_path), device="cpu")["prompts"]
    assert told == dict.fromkeys(["x", "y"], UNWRITTEN)
    assert not (tmp_path / "captions.jsonl").exists()
    assert loads == []
    x = source.load("x").prompt
    assert x.size == (24, 40)
    assert set(x.text.split()) <= set(WORDS)
    assert "grey sky" in source.instruction
    again = captions(project, tmp_path)
    assert [again.load(i).prompt.text for i in ("x", "y")] == [x.text, source.load("y").prompt.text]
    assert len(loads) == 2  # the second one for y
    rows = [json.loads(line) for line in (tmp_path / "captions.jsonl").read_text().splitlines()]
    assert [(row["file_name"], row["text"]) for row in rows[:1]] == [("x.png", x.text)]
    rows[0]["text"] = "by hand"
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, rows[:1])))  # an editor left no line end
    edited = captions(project, tmp_path)
    assert preview(load_recipe(project, root=tmp_path), device="cpu")["prompts"] == {"x": "by hand", "y": UNWRITTEN}
    assert [edited.load(i).prompt.text for i in ("x", "y")] == ["by hand", source.load("y").prompt.text]
    assert [s.prompt.text for s in captions(project, tmp_path)] == [s.prompt.text for s in edited]


def test_captions_of_another_instruction_are_refused(project, tmp_path) -> None:
    captions(project, tmp_path).load("x")
    project["conditions"]["instruction"] = "a busy street"
    with pytest.raises(StoreError, match="another model, or it was asked something else"):
        captions(project, tmp_path).load("x")


def test_a_line_that_a_crash_cut_is_written_again(project, tmp_path) -> None:
    source = captions(project, tmp_path)
    whole = [source.load(i).prompt for i in ("x", "y")]
    data = (tmp_path / "captions.jsonl").read_bytes()
    cut = data[:-30]
    (tmp_path / "captions.jsonl").write_bytes(cut)
    told = preview(load_recipe(project, root=tmp_path), device="cpu")["prompts"]
    assert told == {"x": whole[0].text, "y": UNWRITTEN}
    assert (tmp_path / "captions.jsonl").read_bytes() == cut  # a preview mends nothing
    assert [captions(project, tmp_path).load(i).prompt for i in ("x", "y")] == whole
    assert (tmp_path / "captions.jsonl").read_bytes() == data


def test_two_processes_that_wrote_the_same_do_no_harm(project, tmp_path) -> None:
    one, other = captions(project, tmp_path), captions(project, tmp_path)
    assert one.load("x").prompt == other.load("x").prompt
    assert one.load("y").prompt == other.load("y").prompt
    assert len((tmp_path / "captions.jsonl").read_text().splitlines()) == 3  # y twice
    assert [s.prompt for s in captions(project, tmp_path)] == [one.load(i).prompt for i in ("x", "y")]


def test_the_picture_and_the_instruction_decide(model) -> None:
    captioner = Captioner(CaptionOptions(model=str(model), max_new_tokens=8))
    black, white = (np.full((16, 16, 3), value, np.uint8) for value in (0, 255))
    said = [captioner.caption(image, words) for image in (black, white) for words in ("a street", "two cars")]
    assert len(set(said)) > 2
    assert captioner.caption(black, "a street") == said[0]


def test_models_that_cannot_be_used_are_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"conditions\.model: .* could not be loaded"):
        Captioner(CaptionOptions(model="no/such-model"))


def test_captions_are_found_again_where_ids_are_not_file_names(tmp_path, monkeypatch) -> None:
    for folder, ending in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelIds")):
        for city in ("aachen", "ulm"):
            (tmp_path / folder / "train" / city).mkdir(parents=True)
            picture = Image.new("RGB" if folder == "leftImg8bit" else "L", (32, 16))
            picture.save(tmp_path / folder / "train" / city / f"{city}_000000_000019_{ending}.png")
    asked = []
    monkeypatch.setattr(Captioner, "__init__", lambda *_, **__: None)
    monkeypatch.setattr(Captioner, "caption", lambda *_: asked.append(1) or f"street {len(asked)}")
    project = {
        "labels": "cityscapes19", "data": {"format": "cityscapes", "root": str(tmp_path), "ids": "trainIds"},
        "conditions": {"format": "captions", "model": "some/model"},
        "generator": {"use": "text2image", "base": "genaug-tiny"},
    }  # fmt: skip
    first, again = ({s.id: s.prompt.text for s in captions(project, tmp_path)} for _ in range(2))
    assert again == first
    assert sorted(first.values()) == ["street 1", "street 2"]
    assert len(asked) == 2
    listed = load_recipe({**project, "conditions": {"format": "prompts", "path": "captions.jsonl"}}, root=tmp_path)
    assert {s.id: s.prompt.text for s in listed.conditions(listed.context())} == first
