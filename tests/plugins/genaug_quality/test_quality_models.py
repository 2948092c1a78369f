"""Sections that ask models which the user names: tiny ones, built here, saved as transformers saves them."""

import numpy as np
import pytest
import torch
from PIL import Image

from genaug.errors import ConfigError
from genaug.labels import LabelSpace
from genaug.report.figures import Measured
from genaug.rng import Rng
from genaug.types import Sample
from genaug_quality.clip import ClipScore
from genaug_quality.features import COMPARED, Features, frechet_distance, frechet_intervals, nearest_similarity
from genaug_quality.instances import Instances, prompt_of

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", ",", "sky", "road", "car", "a", "photo", "of"]
LABELS = LabelSpace({0: "Sky", 3: "road_marking", 7: "car"})


def picture(seed, size=(40, 50)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def samples(count=3):
    return [Sample(f"s{i}", picture(i, (40, 50 + i))) for i in range(count)]


def tokenizer():
    from transformers import BertTokenizerFast

    return BertTokenizerFast(vocab={word: i for i, word in enumerate(WORDS)})


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    from transformers import BertConfig, GroundingDinoConfig, GroundingDinoForObjectDetection, SwinConfig
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil

    torch.manual_seed(0)
    backbone = SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[1, 1, 1], num_heads=[1, 2, 2], window_size=2,
        out_features=["stage2", "stage3"],
    )  # fmt: skip
    text = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    config = GroundingDinoConfig(
        backbone_config=backbone, text_config=text, d_model=32, encoder_layers=1, decoder_layers=2, num_queries=12,
        encoder_ffn_dim=16, decoder_ffn_dim=16, encoder_attention_heads=2, decoder_attention_heads=2,
        num_feature_levels=3, max_text_len=32, encoder_n_points=2, decoder_n_points=2,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("detector")
    for part in (
        GroundingDinoForObjectDetection(config), tokenizer(),
        GroundingDinoImageProcessorPil(size={"shortest_edge": 48, "longest_edge": 80}),
    ):  # fmt: skip
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    torch.manual_seed(1)
    layer = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**layer, "vocab_size": len(WORDS), "max_position_embeddings": 12, "eos_token_id": 3},
        vision_config={**layer, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    folder = tmp_path_factory.mktemp("clip")
    for part in (
        CLIPModel(config),
        tokenizer(),
        CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    ):
        part.save_pretrained(folder)
    return folder


def test_instances_are_those_of_the_official_post_processing(detector):
    from transformers import AutoModelForZeroShotObjectDetection, GroundingDinoProcessor
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil

    section = Instances(str(detector), prompt="sky. road. car.", threshold=0.9)
    model = AutoModelForZeroShotObjectDetection.from_pretrained(detector).eval()
    processor = GroundingDinoProcessor(GroundingDinoImageProcessorPil.from_pretrained(detector), tokenizer())
    expected = []
    for sample in samples():
        inputs = processor(images=Image.fromarray(sample.image), text="sky. road. car.", return_tensors="pt")
        with torch.inference_mode():
            found = processor.post_process_grounded_object_detection(model(**inputs), inputs.input_ids, threshold=0.9)
        expected.append(len(found[0]["scores"]))
    assert [r["instances"] for r in section.measure(samples())] == expected
    assert 0 < sum(expected) < 3 * 12
    assert section.statistics()[0].harm == "sparser"
    assert prompt_of(LABELS) == "sky. road marking. car."


def test_a_model_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"instances\.model.*'no/such-model' cannot be loaded"):
        Instances("no/such-model", prompt="sky.").measure(samples(1))


def test_clip_scores(clip):
    from transformers import CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    mask = np.zeros((40, 50), np.uint8)
    mask[0] = 7
    given = Sample("given", picture(0), None, {"prompt": "a photo of road"})
    masked, bare = Sample("masked", picture(1), mask), Sample("bare", picture(2))
    long = Sample("long", picture(3), None, {"prompt": "road " * 30})
    section = ClipScore(str(clip), labels=LABELS)
    assert section.text_of(masked) == "a photo of Sky, car"
    assert section.text_of(bare) is None
    records = section.measure([given, masked, bare, long])
    assert np.isnan(records[2]["clip_score"])
    assert [r["cut"] for r in records[:2]] == [0, 0]
    assert records[3]["cut"] == 1
    model, processor = CLIPModel.from_pretrained(clip).eval(), CLIPImageProcessorPil.from_pretrained(clip)
    inputs = tokenizer()("a photo of road", return_tensors="pt")
    pixels = processor(images=Image.fromarray(given.image), return_tensors="pt").pixel_values
    with torch.inference_mode():
        cosine = model(**inputs, pixel_values=pixels).logits_per_image[0, 0] / model.logit_scale.exp()
    assert records[0]["clip_score"] == pytest.approx(100 * max(float(cosine), 0), abs=1e-3)
    columns = {key: np.array([r[key] for r in records]) for key in records[0]}
    both = Measured(("a", "b", "c", "d"), np.arange(4), columns)
    assert section.conclude(both, both, Rng(0)).figures["texts_cut"] == {"synthetic": 1, "real": 1}


def test_features_of_equal_sets_have_no_distance(clip):
    section = Features(str(clip), batch_size=2)
    records = section.measure(samples(5))
    alone = section.measure(samples(5)[3:4])
    np.testing.assert_allclose(records[3]["features"], alone[0]["features"], atol=1e-5)  # not of its batch
    features = np.stack([r["features"] for r in records])
    assert features.shape == (5, 8)
    own = Measured(tuple(f"s{i}" for i in range(5)), np.arange(5), {"features": features})
    made = Measured(("s3_0", "s3_1", "other"), np.array([0, 0, 1]), {"features": features[[3, 4, 1]]})
    conclusion = section.conclude(made, own, Rng(0))
    paired = conclusion.figures["similarity"]["synthetic to its real image"]
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert paired[0] == pytest.approx((1 + unit[4] @ unit[3]) / 2, abs=1e-5)
    assert conclusion.figures["similarity"]["synthetic to the nearest real image"][0] == pytest.approx(1)
    assert "rough guess" in conclusion.notes[0]
    assert conclusion.figures["frechet_distance"]["images"] == 2


@pytest.mark.parametrize(("n", "m"), [(40, 50), (4, 50), (5, 3), (2, 2)])
def test_frechet_distance_is_torchmetrics(n, m):
    from torchmetrics.image.fid import FrechetInceptionDistance

    numbers = np.random.default_rng(n)
    a = numbers.normal(0, 1, (n, 6)).astype(np.float32)
    b = numbers.normal([3, 0, 0, 1, 0, 0], 2, (m, 6)).astype(np.float32)
    features = torch.nn.Identity()  # the images that the metric is given are features already
    features.num_features = 6
    metric = FrechetInceptionDistance(feature=features)
    for values, real in ((a, False), (b, True)):
        metric.update(torch.from_numpy(values), real=real)
    assert frechet_distance(a, b) == pytest.approx(float(metric.compute()), rel=1e-4)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert np.isnan(frechet_distance(a[:1], b))


def test_weighted_frechet_distance_is_that_of_weighted_covariances():
    numbers = np.random.default_rng(5)
    sets = [numbers.normal(size=(n, 3)) for n in (9, 30)]
    weights = [numbers.exponential(size=len(x)) for x in sets]
    means = [np.average(x, axis=0, weights=w) for x, w in zip(sets, weights, strict=True)]
    covariances = [np.cov(x, rowvar=False, aweights=w) for x, w in zip(sets, weights, strict=True)]
    roots = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).real).sum()
    expected = ((means[0] - means[1]) ** 2).sum() + sum(np.trace(c) for c in covariances) - 2 * roots
    assert frechet_distance(*sets, weights=tuple(weights)) == pytest.approx(expected)


def of(features, group=1):
    ids = tuple(f"s{i}" for i in range(len(features)))
    return Measured(ids, np.arange(len(ids)) // group, {"features": features.astype(np.float32)})


def test_the_yardstick_has_as_many_images_as_what_it_is_held_against():
    """Against all real images, a worse set would be nearer than one half of them is to the other."""
    numbers = np.random.default_rng(3)
    real, same = numbers.normal(size=(2, 120, 24))
    shifted = numbers.normal(0.35, 1, (120, 24))
    assert frechet_distance(shifted, real) < frechet_distance(real[:60], real[60:])
    told = {}
    for name, made in (("same", same), ("shifted", shifted)):
        count, told[name] = frechet_intervals(of(made), of(real), Rng(1))
        assert count == 60
        for value, low, high in told[name].values():
            assert low < value < high
    assert told["same"]["difference"][1] < 0 < told["same"]["difference"][2]
    assert told["shifted"]["difference"][1] > 0
    assert told["same"]["two halves of the real set"] == told["shifted"]["two halves of the real set"]
    assert frechet_intervals(of(same), of(real), Rng(1))[1] == told["same"]


def test_frechet_intervals_weigh_groups_and_take_equal_numbers():
    numbers = np.random.default_rng(4)
    real, made = numbers.normal(size=(40, 4)), numbers.normal(size=(30, 4))
    alike = np.repeat(made[:6], 5, 0)  # five equal images of six masks: no more than six tell anything
    widths = []
    for features, group in ((made, 1), (alike, 5)):
        count, found = frechet_intervals(of(features, group), of(real), Rng(2))
        assert count == 20
        _, low, high = found["synthetic to real"]
        widths.append(high - low)
    assert widths[1] > 1.5 * widths[0]
    assert frechet_intervals(of(made[:7]), of(real), Rng(2))[0] == 7
    one_group = frechet_intervals(of(made, 30), of(real), Rng(2))[1]
    assert all(value is not None and low is high is None for value, low, high in one_group.values())
    assert frechet_intervals(of(made[:1]), of(real), Rng(2)) == (1, dict.fromkeys(COMPARED, (None, None, None)))
    assert frechet_intervals(of(made), of(real[:3]), Rng(2))[1] == dict.fromkeys(COMPARED, (None, None, None))


def test_nearest_similarity_equals_all_pairs():
    numbers = np.random.default_rng(1)
    a, b = numbers.normal(size=(7, 4)), numbers.normal(size=(5, 4))
    cosines = np.array([[x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in b] for x in a])
    np.testing.assert_allclose(nearest_similarity(a, b), cosines.max(1))
    own = np.array([[x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in a] for x in a]) - 3 * np.eye(7)
    np.testing.assert_allclose(nearest_similarity(a), own.max(1))
    assert np.isnan(nearest_similarity(a[:1])).all()
