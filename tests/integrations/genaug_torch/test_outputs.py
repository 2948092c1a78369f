"""What models return: every form that hosts use, and clear errors for the others."""

import warnings

import pytest
import torch
import torch.nn.functional as F

from genaug.errors import ConfigError, SampleError
from genaug.predictions import Predictions
from genaug_torch import OutputReader, project_queries
from genaug_torch.outputs import warn_of_kind

DENSE = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
CLASSES = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(1))
MASKS = torch.randn(2, 6, 3, 5, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("output", "key"),
    [
        (DENSE, None),
        ({"out": DENSE, "aux": DENSE[:, :, :1]}, None),
        ({"logits": DENSE, "loss": torch.zeros(())}, None),
        ({"sem_seg": DENSE}, "sem_seg"),
        ((DENSE, None), None),
        ([None, DENSE], 1),
        ([DENSE[:, :1], DENSE], -1),
    ],
)
def test_dense_outputs(output, key):
    predictions = OutputReader("probs", key=key)(output, (3, 5))
    assert predictions.values is DENSE
    assert predictions.kind == "probs"


def test_transformers_models_are_read_without_a_key():
    from transformers import MaskFormerConfig, MaskFormerForInstanceSegmentation, SegformerConfig, SwinConfig
    from transformers import SegformerForSemanticSegmentation as Segformer

    torch.manual_seed(0)
    images = torch.rand(1, 3, 64, 64)
    model = Segformer(SegformerConfig(hidden_sizes=[8] * 4, depths=[1] * 4, num_labels=3, decoder_hidden_size=8)).eval()
    with torch.no_grad():
        output = model(images)
        predictions = OutputReader("logits")(output, (64, 64))
    assert output.logits.shape[2:] == (16, 16)
    expected = F.interpolate(output.logits, size=(64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(predictions.values, expected)

    backbone = SwinConfig(embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=4, image_size=64,
                          out_features=["stage1", "stage2", "stage3", "stage4"])  # fmt: skip
    config = MaskFormerConfig(backbone_config=backbone, num_labels=3, fpn_feature_size=32, mask_feature_size=32)
    config.decoder_config.d_model, config.decoder_config.decoder_layers = 32, 1
    config.decoder_config.encoder_attention_heads = config.decoder_config.decoder_attention_heads = 2
    config.decoder_config.encoder_ffn_dim = config.decoder_config.decoder_ffn_dim = 16
    config.decoder_config.num_queries = 5
    with torch.no_grad():
        output = MaskFormerForInstanceSegmentation(config).eval()(images)
        predictions = OutputReader("queries")(output, (64, 64))
    assert predictions.kind == "scores"
    assert predictions.values.shape == (1, 3, 64, 64)
    assert predictions.image_confidence.shape == (1,)


def naive_projection(classes, masks):
    scores = torch.zeros(2, 4, *masks.shape[2:])
    for b in range(2):
        for q in range(6):
            probabilities = classes[b, q].softmax(0)
            for k in range(4):  # the fifth is "no object"
                scores[b, k] += probabilities[k] * masks[b, q].sigmoid()
    return scores


@pytest.mark.parametrize("order", ["resize-scores", "resize-logits"])
@pytest.mark.parametrize("align_corners", [False, True])
def test_queries_in_both_orders(order, align_corners):
    def resize(x):
        return F.interpolate(x, size=(9, 10), mode="bilinear", align_corners=align_corners)

    read = OutputReader("queries", order=order, align_corners=align_corners)
    predictions = read({"pred_logits": CLASSES, "pred_masks": MASKS}, (9, 10))
    if order == "resize-scores":
        expected = resize(naive_projection(CLASSES, MASKS))
    else:
        expected = naive_projection(CLASSES, resize(MASKS))
    torch.testing.assert_close(predictions.values, expected)
    sure = torch.stack([torch.stack([CLASSES[b, q].softmax(0).max() for q in range(6)]).mean() for b in range(2)])
    torch.testing.assert_close(predictions.image_confidence, sure)
    for output, key in (((CLASSES, MASKS), None), ({"a": CLASSES, "b": MASKS}, ("a", "b"))):
        other = OutputReader("queries", key=key, order=order, align_corners=align_corners)(output, (9, 10))
        assert torch.equal(other.values, predictions.values)


def test_one_hot_queries_give_their_label_map_back():
    labels = torch.randint(0, 3, (1, 4, 6), generator=torch.Generator().manual_seed(3))
    classes = 20.0 * torch.eye(3, 4).unsqueeze(0)
    masks = torch.stack([torch.where(labels == q, 20.0, -20.0) for q in range(3)], 1)
    scores = project_queries(classes, masks, (4, 6))
    assert torch.equal(scores.confidence()[1], labels)


@pytest.mark.parametrize("order", ["resize-scores", "resize-logits"])
def test_queries_are_summed_in_full_precision_under_autocast(order):
    expected = project_queries(CLASSES, MASKS, (9, 10), order=order).values
    with torch.autocast("cpu", torch.bfloat16):
        found = project_queries(CLASSES, MASKS, (9, 10), order=order).values
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("kind", "output", "key", "told"),
    [
        ("logits", {"a": DENSE, "b": DENSE}, None, "dict with a, b.*Name the entry by 'key'"),
        ("logits", {"logits": DENSE, "out": DENSE}, None, "dict with logits, out"),
        ("logits", {"a": DENSE}, "z", "no entry 'z'"),
        ("logits", "text", None, "returned a str"),
        ("logits", None, None, "returned a NoneType"),
        ("logits", DENSE[0], None, r"\[B, K, H, W\]"),
        ("queries", {"a": DENSE}, None, "a pair"),
        ("queries", DENSE, None, r"a Tensor\. Allowed: class logits \[B, Q, K \+ 1\] and mask logits"),
        ("queries", (CLASSES[0], MASKS), None, r"\[B, Q, K \+ 1\] and \[B, Q, h, w\]"),
    ],
)
def test_strange_outputs_say_what_they_hold(kind, output, key, told):
    with pytest.raises(SampleError, match=told):
        OutputReader(kind, key=key)(output, (3, 5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("values", "right"),
    [
        (DENSE, {"logits"}),
        (DENSE.softmax(1), {"probs", "scores"}),
        (DENSE.log_softmax(1), {"logits", "log_probs"}),
        (2 * DENSE.softmax(1), {"logits", "scores"}),
    ],
)
def test_kinds_that_cannot_be_are_noticed(values, right, dtype):
    values = values.to(dtype, copy=True)
    values[0, :, 1, 1] = torch.nan
    for kind in ("logits", "log_probs", "probs", "scores"):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            warn_of_kind(Predictions(values, kind))
        if dtype == torch.bfloat16 and kind == "logits":
            continue  # its probabilities sum to 1 too roughly to be told from logits
        assert len(told) == (kind not in right), kind
        assert all(f"kind={kind!r}" in str(w.message) for w in told)
    warn_of_kind(Predictions(torch.full_like(values, torch.nan), "probs"))


def test_what_numbers_mean_is_never_guessed():
    with pytest.raises(TypeError, match="kind"):
        OutputReader()
    with pytest.raises(ConfigError, match="logits, log_probs, probs, scores, queries"):
        OutputReader("softmax")
    with pytest.raises(ConfigError, match="resize-scores, resize-logits"):
        OutputReader("queries", order="both")
