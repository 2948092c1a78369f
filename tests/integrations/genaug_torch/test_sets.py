"""Set targets and the set loss against loops over images, permutations and points, and against transformers."""

import itertools
import math
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from genaug.batch import Batch
from genaug.errors import ConfigError, MissingDependencyError, SampleError
from genaug.predictions import PseudoTargets, SoftTargets
from genaug.rng import Rng
from genaug.step_config import LabelledSetLossConfig
from genaug_torch import SetLoss, project_queries, to_set_targets
from genaug_torch.sets import hard_targets

IGNORE = 255
RNG = Rng(3)
FEW = {"points": 60, "importance": 0.5}


def label_map(seed, b=2, k=3, size=(6, 7), ignored=0.3):
    generator = torch.Generator().manual_seed(seed)
    hard = torch.randint(k, (b, *size), generator=generator)
    # Blocks, so that there are points all of whose neighbours are kept.
    hard = hard[:, ::3, ::3].repeat_interleave(3, 1).repeat_interleave(3, 2)[:, : size[0], : size[1]].contiguous()
    unsure = torch.rand(b, -(-size[0] // 3), -(-size[1] // 3), generator=generator) < ignored
    unsure = unsure.repeat_interleave(3, 1).repeat_interleave(3, 2)[:, : size[0], : size[1]]
    return hard.masked_fill(unsure, IGNORE)


def targets_of(hard):
    return to_set_targets(PseudoTargets(hard, (hard != IGNORE).float()))


def layers(seed, number=1, b=2, q=4, k=3, size=(6, 7), dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(b, q, k + 1, generator=generator).to(dtype).requires_grad_(),
            (2 * torch.randn(b, q, *size, generator=generator)).to(dtype).requires_grad_(),
        )
        for _ in range(number)
    ]


@given(st.integers(0, 1000), st.integers(1, 3), st.integers(1, 4), st.floats(0, 1), st.sampled_from([IGNORE, -100]))
def test_one_mask_for_every_class_among_kept_pixels(seed, b, k, share, ignore):
    generator = torch.Generator().manual_seed(seed)
    hard = torch.randint(k, (b, 3, 4), generator=generator)
    hard[torch.rand(b, 3, 4, generator=generator) < share] = ignore
    weights = torch.rand(b, 3, 4, generator=generator)
    weights[torch.rand(b, 3, 4, generator=generator) < share] = 0
    found = to_set_targets(PseudoTargets(hard, weights), ignore_index=ignore)
    assert len(found) == b
    for i, target in enumerate(found):
        kept = [(y, x) for y in range(3) for x in range(4) if weights[i, y, x] > 0 and hard[i, y, x] != ignore]
        classes = sorted({int(hard[i, y, x]) for y, x in kept})
        assert target["labels"].dtype == torch.int64
        assert target["labels"].tolist() == classes
        assert target["masks"].dtype == torch.bool
        assert target["masks"].shape == (len(classes), 3, 4)
        for c, mask in zip(classes, target["masks"], strict=True):
            assert {(int(y), int(x)) for y, x in mask.nonzero()} == {p for p in kept if hard[i, p[0], p[1]] == c}
        expected = torch.zeros(3, 4)
        for y, x in kept:
            expected[y, x] = weights[i, y, x]
        assert torch.equal(target["pixel_weight"], expected)


def test_one_hot_queries_give_their_label_map_back():
    """Labels to sets, sets to queries of +-20, queries to pixels: the same labels."""
    hard = torch.randint(0, 3, (2, 5, 6), generator=torch.Generator().manual_seed(0))
    hard[0, :2] = IGNORE
    for image, target in zip(hard, targets_of(hard), strict=True):
        assert target["labels"].tolist() == [0, 1, 2]
        classes = 20.0 * F.one_hot(target["labels"], 4).float().unsqueeze(0)
        masks = torch.where(target["masks"], 20.0, -20.0).unsqueeze(0)
        back = project_queries(classes, masks, (5, 6)).confidence()[1][0]
        assert torch.equal(back[image != IGNORE], image[image != IGNORE])
        again = [(classes.double() * 5, masks.double())]  # and there is nothing left to learn from them
        loss = SetLoss(points=400)(again, [target], rng=RNG)
        assert float(loss) < float(SetLoss(points=400)([(classes * 5, -masks)], [target], rng=RNG)) / 4


# ------------------------------------------------------------------ the slow way


def at(image, point):
    """Bilinear value of ``[h, w]`` at ``(x, y)`` in [0, 1], zero outside, and the pixels and shares it is made of."""
    h, w = image.shape
    x, y = float(point[0]) * w - 0.5, float(point[1]) * h - 0.5
    value, touched = 0.0, []
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            share = (1 - abs(y - row)) * (1 - abs(x - column))
            touched.append(((min(max(row, 0), h - 1), min(max(column, 0), w - 1)), share))
            if 0 <= row < h and 0 <= column < w:
                value = value + share * image[row, column]
    return value, touched


def naive(all_layers, targets, options, rng):
    """Loops over layers, images, targets, points; the matching tries all assignments."""
    unsure = int(options["points"] * options["importance"])
    candidates = int(options["points"] * options["oversample"])
    points = torch.rand(candidates + options["points"] - unsure, 2, generator=rng.torch()).double()
    number = sum(len(target["labels"]) for target in targets)
    answer = 0.0
    for classes, masks in all_layers:
        q, nothing = classes.shape[1], classes.shape[2] - 1
        ce, ce_weight, pairs = 0.0, 0.0, 0.0
        for i, target in enumerate(targets):
            n = len(target["labels"])
            if not n:
                continue
            weight = []
            for point in points:
                _, pixels = at(target["pixel_weight"], point)
                sure = all(target["pixel_weight"][p] > 0 for p, _ in pixels)
                mean = sum(float(target["pixel_weight"][p]) * share for p, share in pixels)
                weight.append(1.0 if options["conf_mask"] == "as_released" else mean * sure)
            logits = [[at(masks[i, j], point)[0] for point in points] for j in range(q)]
            detached = [[float(torch.as_tensor(z).detach()) for z in row] for row in logits]
            there = [[float(at(mask.double(), point)[0]) for point in points] for mask in target["masks"]]

            def mask_terms(j, t, chosen, weight=weight, logits=logits, there=there):
                z = torch.stack([torch.as_tensor(logits[j][p]) for p in chosen]).double()
                y = torch.tensor([there[t][p] for p in chosen]).double()
                w = torch.tensor([weight[p] for p in chosen]).double()
                p = 1 / (1 + (-z).exp())
                bce = -(w * (y * p.log() + (1 - y) * (1 - p).log())).sum() / w.sum() if w.sum() else 0 * p.sum()
                return bce, 1 - (2 * (w * p * y).sum() + 1) / ((w * p).sum() + (w * y).sum() + 1)

            probabilities = classes[i].softmax(-1)
            first = range(options["points"])
            cost = torch.zeros(q, n, dtype=torch.float64)
            for j, t in itertools.product(range(q), range(n)):
                bce, dice = mask_terms(j, t, first)
                cost[j, t] = (
                    -options["cost_class"] * probabilities[j, target["labels"][t]]
                    + options["cost_mask"] * bce + options["cost_dice"] * dice
                ).detach()  # fmt: skip
            if n <= q:
                tries = [list(zip(js, range(n), strict=True)) for js in itertools.permutations(range(q), n)]
            else:
                tries = [list(zip(range(q), ts, strict=True)) for ts in itertools.permutations(range(n), q)]
            best = min(tries, key=lambda pairs: sum(float(cost[j, t]) for j, t in pairs))
            wanted = {j: int(target["labels"][t]) for j, t in best}
            for j in range(q):
                share = 1.0 if j in wanted else options["no_object"]
                ce = ce - share * classes[i, j].log_softmax(-1)[wanted.get(j, nothing)]
                ce_weight += share
            for j, t in best:
                ranked = sorted(range(candidates), key=lambda p: (weight[p] == 0, abs(float(detached[j][p]))))
                bce, dice = mask_terms(j, t, ranked[:unsure] + list(range(candidates, len(points))))
                pairs = pairs + options["mask_weight"] * bce + options["dice_weight"] * dice
        answer = answer + options["class_weight"] * ce / max(ce_weight, 1) + pairs / max(number, 1)
    return answer


@pytest.mark.parametrize("conf_mask", ["intended", "as_released"])
@pytest.mark.parametrize(
    ("seed", "b", "q", "k", "number"), [(0, 2, 4, 3, 2), (1, 1, 3, 3, 1), (2, 3, 3, 2, 1), (3, 2, 2, 9, 1)]
)
def test_the_loss_equals_loops_and_all_assignments(conf_mask, seed, b, q, k, number):
    options = {
        "points": 20, "importance": 0.6, "oversample": 2.0, "no_object": 0.1, "dice_weight": 3.0, "cost_dice": 1.0,
        "cost_class": 2.0, "conf_mask": conf_mask,
    }  # fmt: skip
    hard = label_map(seed, b, k, size=(6, 9))
    if seed == 2:
        hard[1] = IGNORE  # an image that says nothing
    targets = targets_of(hard)
    if seed == 1:
        for target in targets:
            target["pixel_weight"] *= torch.rand(6, 9, generator=torch.Generator().manual_seed(0)) + 0.1
    mine = layers(seed, number, b, q, k, size=(3, 4) if seed == 0 else (6, 9))  # also at a stride
    loss = SetLoss(**options)
    found = loss(mine, targets, rng=RNG)
    expected = naive(mine, targets, loss.options.model_dump(), RNG)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    if seed == 3:
        assert max(len(t["labels"]) for t in targets) > q  # more classes than queries
    inputs = [tensor for layer in mine for tensor in layer]
    pairs = zip(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_transformers_own_loss_agrees_where_it_means_the_same(monkeypatch):
    """Mask2Former's weights, every image with targets, nothing masked, and the same random points."""
    from transformers import Mask2FormerConfig
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

    weights = LabelledSetLossConfig()
    config = Mask2FormerConfig(num_labels=3, train_num_points=60, no_object_weight=weights.no_object)
    assert (config.class_weight, config.mask_weight, config.dice_weight) == (2, 5, 5)
    assert (config.oversample_ratio, config.importance_sample_ratio) == (weights.oversample, weights.importance)
    targets = targets_of(label_map(0, size=(24, 28)))
    mine = layers(5, number=3, q=6, dtype=torch.float32)
    found = SetLoss.labelled(points=60, conf_mask="as_released")(mine, targets, rng=RNG)
    points = torch.rand(180 + 15, 2, generator=RNG.torch())
    parts = {60: points[:60], 180: points[:180], 15: points[180:]}
    monkeypatch.setattr(torch, "rand", lambda many, number, two, device: parts[number].repeat(many, 1, 1))
    (classes, masks), *inner = mine
    told = Mask2FormerLoss(config, {})(
        masks, classes, [t["masks"].float() for t in targets], [t["labels"] for t in targets],
        [{"class_queries_logits": c, "masks_queries_logits": m} for c, m in inner],
    )  # fmt: skip
    factors = {"cross": config.class_weight, "mask": config.mask_weight, "dice": config.dice_weight}
    expected = sum(factors[name.split("_")[1]] * value for name, value in told.items())
    assert len(told) == 9
    torch.testing.assert_close(found, expected)


# ------------------------------------------------------------------ properties


@pytest.mark.parametrize("labelled", [False, True])
def test_logits_of_ignored_pixels_change_nothing_as_intended(labelled):
    hard = label_map(1, size=(9, 12))
    targets = targets_of(hard)
    (layer,) = layers(1, size=(9, 12))
    away = (hard == IGNORE).unsqueeze(1)
    assert 0.1 < float(away.double().mean()) < 0.9
    other = torch.where(away, -3 * layer[1], layer[1]).detach().requires_grad_()
    make = SetLoss.labelled if labelled else SetLoss
    for conf_mask in ("intended", "as_released"):
        loss = make(points=200, conf_mask=conf_mask)
        one, two = (loss([(layer[0], masks)], targets, rng=RNG) for masks in (layer[1], other))
        (gradient,) = torch.autograd.grad(two, other)
        same = bool(torch.isclose(one, two, rtol=1e-12))
        assert same == (conf_mask == "intended")
        assert bool((gradient[away.expand_as(gradient)] == 0).all()) == (conf_mask == "intended")


def test_points_depend_on_the_seed_only():
    mine, targets = layers(0), targets_of(label_map(0))
    loss = SetLoss(**FEW)
    torch.manual_seed(1)
    first = loss(mine, targets, rng=RNG)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(first, loss(mine, targets, rng=Rng(3)))
    assert not torch.equal(first, loss(mine, targets, rng=Rng(4)))
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())


def test_images_and_queries_may_come_in_any_order():
    mine, targets = layers(0, b=3), targets_of(label_map(0, b=3))
    loss = SetLoss(**FEW)
    (classes, masks) = mine[0]
    turned = [(classes.flip(0)[:, [2, 0, 3, 1]], masks.flip(0)[:, [2, 0, 3, 1]])]
    torch.testing.assert_close(loss(mine, targets, rng=RNG), loss(turned, targets[::-1], rng=RNG))


def test_images_without_targets_take_no_part():
    hard = label_map(0, b=1)
    nothing = torch.full_like(hard, IGNORE)
    mine = layers(0, number=2)
    loss = SetLoss.labelled(**FEW)
    both = loss(mine, targets_of(torch.cat([hard, nothing])), rng=RNG)
    torch.testing.assert_close(both, loss([(c[:1], m[:1]) for c, m in mine], targets_of(hard), rng=RNG))
    gradients = torch.autograd.grad(both, [t for layer in mine for t in layer])
    assert all(float(g[1].abs().max()) == 0 and float(g[0].abs().max()) > 0 for g in gradients)


@pytest.mark.parametrize("b", [1, 2])
def test_no_targets_at_all_is_a_zero_with_zero_gradients(b):
    mine = layers(0, b=b, number=2)
    loss = SetLoss(**FEW)(mine, targets_of(torch.full((b, 6, 7), IGNORE)), rng=RNG)
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(torch.equal(t.grad, torch.zeros_like(t)) for layer in mine for t in layer)


def test_lone_pixels_have_no_point_of_their_own_and_make_no_nan():
    hard = torch.full((1, 6, 7), IGNORE)
    hard[0, 2, 2] = 1
    mine = layers(0, b=1)
    loss = SetLoss.labelled(**FEW)(mine, targets_of(hard), rng=RNG)
    loss.backward()
    assert all(torch.isfinite(t.grad).all() for layer in mine for t in layer)
    assert float(mine[0][0].grad.abs().max()) > 0  # the class is learned
    assert float(mine[0][1].grad.abs().max()) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_full(dtype):
    mine, targets = layers(0, dtype=dtype), targets_of(label_map(0))
    loss = SetLoss.labelled(**FEW)
    found = loss(mine, targets, rng=RNG)
    assert found.dtype == torch.float32
    expected = loss([(c.float(), m.float()) for c, m in mine], targets, rng=RNG)
    assert torch.equal(found, expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(mine, targets, rng=RNG), expected)
    found.backward()
    assert all(t.grad.dtype == dtype and torch.isfinite(t.grad).all() for layer in mine for t in layer)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([(1e-3, 1), (1, 1), (1e3, 1e3), (88, 1e4)]))
def test_extreme_logits_keep_gradients_finite(seed, scales):
    mine = [((c * scales[0]).detach(), (m * scales[1]).detach()) for c, m in layers(seed, dtype=torch.float32)]
    mine = [(c.requires_grad_(), m.requires_grad_()) for c, m in mine]
    loss = SetLoss.labelled(**FEW)(mine, targets_of(label_map(seed)), rng=RNG)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(t.grad).all() for layer in mine for t in layer)


def test_queries_that_are_no_numbers_are_matched_last():
    classes, masks = (tensor.detach().clone() for tensor in layers(0, b=1)[0])
    masks[0, 1] = torch.nan
    (target,) = targets_of(label_map(0, b=1, ignored=0))
    assert len(target["labels"]) == 3
    loss = SetLoss.labelled(**FEW)([(classes, masks)], [target], rng=RNG)
    assert torch.isfinite(loss)  # three others are left


def test_soft_targets_and_strange_shapes_are_refused():
    images, hard = torch.zeros(2, 3, 6, 7), label_map(0)
    soft = SoftTargets(torch.zeros(2, 3, 6, 7), torch.zeros(3))
    with pytest.raises(SampleError, match=r"no set of masks.*labeler\.target"):
        hard_targets(Batch(images, hard, soft=soft))
    with pytest.raises(SampleError, match="without targets"):
        hard_targets(Batch(images))
    valid = torch.rand(2, 6, 7) < 0.5
    made = hard_targets(Batch(images, hard, valid=valid))
    assert torch.equal(made.hard, torch.where(valid, hard, IGNORE))
    with pytest.raises(SampleError, match=r"\(2, 4, 4\).*1 targets.*\[B, Q, h, w\]"):
        SetLoss(**FEW)(layers(0), targets_of(hard[:1]), rng=RNG)


@pytest.mark.parametrize("label", [3, 7, -1])  # 3 is "no object"
def test_labels_that_are_no_class_are_refused(label):
    hard = label_map(0)
    hard[1, 5, 6] = 2
    targets = targets_of(hard)
    assert targets[1]["labels"][-1] == 2
    targets[1]["labels"][-1] = label
    with pytest.raises(SampleError, match=rf"set loss: label {label} for a model of 3 classes\. Allowed: 0 to 2"):
        SetLoss(**FEW)(layers(0), targets, rng=RNG)


def test_options_are_checked(monkeypatch):
    with pytest.raises(ConfigError, match="conf_mask"):
        SetLoss(conf_mask="none")
    with pytest.raises(ConfigError, match="unknown key"):
        SetLoss.labelled(eos=0.1)
    assert SetLoss.labelled().options.no_object == 0.1
    assert SetLoss.labelled(no_object=0.2).options.model_dump() == LabelledSetLossConfig(no_object=0.2).model_dump()
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(MissingDependencyError, match="scipy"):
        SetLoss()
