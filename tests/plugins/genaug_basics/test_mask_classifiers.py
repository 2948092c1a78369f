"""The predictor ``transformers`` with mask classifiers: contract, and equality with a loop over queries."""

import json

import pytest
import torch
from torch import nn

from genaug.testing.predictors import PredictorContract
from genaug_basics.transformers_predictor import TransformersPredictor

K, Q = 3, 4
BACKBONE = {
    "embed_dim": 8, "depths": [1] * 4, "num_heads": [1, 1, 2, 2], "window_size": 4, "image_size": 32,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}  # fmt: skip


def mask2former() -> nn.Module:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    config = Mask2FormerConfig(
        backbone_config=SwinConfig(**BACKBONE), num_labels=K, num_queries=Q, feature_size=32, mask_feature_size=32,
        hidden_dim=32, encoder_feedforward_dim=32, dim_feedforward=32, encoder_layers=1, decoder_layers=2,
        num_attention_heads=2,
    )  # fmt: skip
    return Mask2FormerForUniversalSegmentation(config)


def maskformer() -> nn.Module:
    from transformers import DetrConfig, MaskFormerConfig, MaskFormerForInstanceSegmentation, SwinConfig

    decoder = DetrConfig(
        d_model=16, decoder_layers=1, encoder_layers=1, decoder_attention_heads=2, encoder_attention_heads=2,
        decoder_ffn_dim=16, encoder_ffn_dim=16, num_queries=Q,
    )  # fmt: skip
    config = MaskFormerConfig(
        backbone_config=SwinConfig(**BACKBONE), decoder_config=decoder, num_labels=K, fpn_feature_size=32,
        mask_feature_size=32,
    )  # fmt: skip
    return MaskFormerForInstanceSegmentation(config)


@pytest.fixture(scope="module", params=[mask2former, maskformer], ids=lambda made: made.__name__)
def saved(request, tmp_path_factory):
    torch.manual_seed(0)
    model, folder = request.param().eval(), tmp_path_factory.mktemp("queries")
    model.save_pretrained(folder)
    processor = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "do_normalize": True, "do_rescale": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder, model


class TestMaskClassifierContract(PredictorContract):
    classes = K

    @pytest.fixture(autouse=True)
    def _folder(self, saved):
        self.path, self.model = saved

    def make_predictor(self):
        return TransformersPredictor(self.path)

    def test_it_is_the_sum_over_queries(self):
        images = self.images(2, (32, 64))
        with torch.inference_mode():
            output = self.model(pixel_values=(images - 0.5) / 0.25)
            classes = output.class_queries_logits.softmax(-1)
            masks = nn.functional.interpolate(
                output.masks_queries_logits, size=(32, 64), mode="bilinear", align_corners=False
            ).sigmoid()
            scores = torch.zeros(2, K, 32, 64)
            for query in range(Q):
                for k in range(K):
                    scores[:, k] += classes[:, query, k].view(-1, 1, 1) * masks[:, query]
            found = self.make_predictor()(images)
            torch.testing.assert_close(found.softmax(1), scores / scores.sum(1, keepdim=True))
            assert torch.equal(found.argmax(1), scores.argmax(1))
