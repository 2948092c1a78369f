import copy

import pytest
import torch
import torch.nn.functional as F
from detectron2.structures import ImageList
from detectron2_helpers import ToyTrainer, config
from torch import nn

from genaug.errors import ConfigError, SampleError
from genaug_detectron2.network import Network
from genaug_torch import OutputReader

pytestmark = pytest.mark.usefixtures("toys")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(2)
    return ToyTrainer.build_model(config(tmp_path_factory.mktemp("model"))).eval()


def images(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes]


def entries(*sizes, **more):
    return [{"image": image, "height": s[0], "width": s[1]} for image, s in zip(images(*sizes), sizes, strict=True)]


@pytest.mark.parametrize("image_format", ["BGR", "RGB"])
@pytest.mark.parametrize("size", [(40, 56), (33, 47)])
@torch.no_grad()
def test_it_says_what_the_model_says(model, size, image_format):
    """Padded by `prepare`, or by the network itself: the same logits as the model's own inference."""
    network = Network(model, image_format=image_format).eval()
    inputs = entries(size)
    expected = model(inputs)[0]["sem_seg"]
    prepared, _ = network.prepare(inputs, [])
    read = OutputReader("logits")
    padded = read(network(prepared.images), tuple(prepared.images.shape[2:])).values
    torch.testing.assert_close(padded[0, :, : size[0], : size[1]], expected)
    cut = prepared.images[:, :, : size[0], : size[1]]
    torch.testing.assert_close(read(network(cut), size).values[0], expected)


def test_channels_are_rgb_whatever_the_model_takes(model):
    for image_format, order in (("BGR", [2, 1, 0]), ("RGB", [0, 1, 2])):
        network = Network(model, image_format=image_format)
        (image,) = images((40, 56))
        prepared, _ = network.prepare([{"image": image}], [])
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (network.mean, network.std))
        torch.testing.assert_close(prepared.images[0] * std + mean, image[order].float() / 255)


def test_labelled_and_unlabelled_images_share_a_size(model):
    network = Network(model, image_format="BGR")
    labeled = entries((40, 56), (17, 20))
    labeled[0]["sem_seg"] = torch.ones(40, 56, dtype=torch.int64)
    first, second = network.prepare(labeled, entries((35, 63)))
    assert first.images.shape == (2, 3, 40, 64)
    assert second.images.shape == (1, 3, 40, 64)
    for batch, sizes in ((first, [(40, 56), (17, 20)]), (second, [(35, 63)])):
        for image, valid, (h, w) in zip(batch.images, batch.valid, sizes, strict=True):
            expected = torch.zeros(40, 64, dtype=torch.bool)
            expected[:h, :w] = True
            assert torch.equal(valid, expected)
            assert (image[:, ~valid] == 0).all()  # as the model pads: after the normalisation
    assert torch.equal(first.labels[0] == 1, first.valid[0])
    assert (first.labels[1] == 255).all()
    labeled[0]["sem_seg"] = torch.ones(40, 50, dtype=torch.int64)
    with pytest.raises(SampleError, match=r"\(40, 50\) for an image of \(40, 56\)"):
        network.prepare(labeled, [])


def test_it_works_in_training_mode_with_gradients(model):
    network = Network(copy.deepcopy(model), image_format="BGR").train()
    output = network(torch.randn(2, 3, 40, 56))
    assert output.shape == (2, 3, 10, 14)
    output.sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_what_it_is_made_of(model):
    network = Network(model, image_format="BGR")
    assert (network.kind, network.ignore_index) == ("logits", 255)
    assert network.model is model
    chosen = Network(model, image_format="BGR", ignore_index=7)
    assert (chosen.prepare(entries((17, 20)), [])[0].labels == 7).all()
    assert len(list(network.parameters())) == len(list(model.parameters()))


def test_errors(model):
    with pytest.raises(ConfigError, match="YUV"):
        Network(model, image_format="YUV-BT.601")
    with pytest.raises(ConfigError, match="a Linear without backbone, sem_seg_head"):
        Network(nn.Linear(1, 1), image_format="RGB")
    headless = copy.deepcopy(model)
    headless.sem_seg_head = nn.Identity()
    with pytest.raises(ConfigError, match=r"without sem_seg_head\.layers"):
        Network(headless, image_format="RGB")
    gray = copy.deepcopy(model)
    gray.pixel_mean = torch.zeros(1, 1, 1)
    with pytest.raises(ConfigError, match="1 channels"):
        _ = Network(gray, image_format="RGB").mean


class QueryModel(nn.Module):
    """As MaskFormer is made; one convolution is all there is."""

    num_queries, size_divisibility = 2, 8

    def __init__(self):
        super().__init__()
        self.register_buffer("pixel_mean", torch.zeros(3, 1, 1))
        self.register_buffer("pixel_std", torch.ones(3, 1, 1))
        self.backbone, self.sem_seg_head = nn.Conv2d(3, 2, 4, 4), nn.Module()
        self.sem_seg_head.layers = lambda x: {
            "pred_logits": torch.zeros(len(x), 2, 4),
            "pred_masks": x,
            "aux_outputs": [],
        }


@torch.no_grad()
def test_queries_of_padded_images_are_cut():
    network = Network(QueryModel(), image_format="RGB")
    assert network.kind == "queries"
    assert network(torch.zeros(1, 3, 16, 24))["pred_masks"].shape == (1, 2, 4, 6)
    image = torch.randn(1, 3, 13, 22)
    output = network(image)
    assert output["pred_logits"].shape == (1, 2, 4)
    padded = ImageList.from_tensors([image[0]], 8).tensor
    expected = F.interpolate(network.model.backbone(padded), (16, 24), mode="bilinear")[:, :, :13, :22]
    torch.testing.assert_close(output["pred_masks"], expected)


def test_the_semantic_half_of_a_panoptic_model(tmp_path):
    """The real PanopticFPN; its instance half needs compiled operators, so here it is a stub that trains nothing."""
    modeling = pytest.importorskip("detectron2.modeling")
    if not hasattr(modeling, "PanopticFPN"):
        pytest.skip("the fake has no PanopticFPN")
    stub = nn.Module()
    plain = ToyTrainer.build_model(config(tmp_path))
    panoptic = modeling.PanopticFPN(
        backbone=plain.backbone,
        proposal_generator=stub,
        roi_heads=stub,
        sem_seg_head=plain.sem_seg_head,
        pixel_mean=plain.pixel_mean.flatten().tolist(),
        pixel_std=plain.pixel_std.flatten().tolist(),
    ).eval()
    network = Network(panoptic, image_format="BGR").eval()
    inputs = entries((33, 47))
    with torch.no_grad():
        expected = plain.eval()(inputs)[0]["sem_seg"]
        prepared, _ = network.prepare(inputs, [])
        made = OutputReader("logits")(network(prepared.images), tuple(prepared.images.shape[2:])).values
    torch.testing.assert_close(made[0, :, :33, :47], expected)


def test_which_of_deeplabs_heads_can_be_used():
    heads = pytest.importorskip("detectron2.projects.deeplab").semantic_seg
    assert callable(heads.DeepLabV3PlusHead.layers)
    assert not hasattr(heads.DeepLabV3Head, "layers")
