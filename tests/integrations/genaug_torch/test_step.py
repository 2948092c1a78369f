"""The step: what is labelled, mixed and seen by the student, against a loop written out; every way to run it."""

import copy
import math

import pytest
import torch
from torch import nn

from genaug.errors import ConfigError, SampleError
from genaug.recipe import load_recipe
from genaug_torch import SemiSupervisedStep

K, IGNORE = 4, 255
WEIGHTS = {"supervised": {"weight": 0.5}, "views": {"strong": "builtin"}}


def model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, K, 1))


def data(seed=0, labelled=2, unlabelled=3, size=(12, 10)):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(K, (labelled, *size), generator=generator)
    labels[:, 0] = IGNORE
    return (
        torch.rand(labelled, 3, *size, generator=generator),
        labels,
        torch.rand(unlabelled, 3, *size, generator=generator),
    )


def recipe(*terms, labeler=None, **more):
    return {"labeler": labeler or {"use": "threshold", "threshold": 0.43}, "terms": list(terms), **WEIGHTS, **more}


def make(*terms, student=None, **more):
    return SemiSupervisedStep(student or model(), recipe(*terms, **more), kind="logits", num_classes=K)


def test_a_step_equals_the_loop_written_out():
    student = model()
    images, labels, unlabelled = data()
    terms = {"view": "strong", "normalizer": "valid", "weight": 0.7}, {"view": "weak", "normalizer": "kept"}
    step = make(*terms, student=student)
    loss, figures = step(images, labels, unlabelled)
    loss.backward()

    twin = model()
    probabilities = copy.deepcopy(twin).eval()(unlabelled).softmax(1).detach()
    confidence, targets = probabilities.max(1)
    kept = confidence >= 0.43
    assert 0.1 < float(kept.float().mean()) < 0.9
    strong = step.strong(unlabelled, rng=step.recipe.rng.child("step", 0, "strong"))
    assert not torch.allclose(strong, unlabelled)
    supervised = nn.functional.cross_entropy(twin(images), labels, ignore_index=IGNORE)
    one = (nn.functional.cross_entropy(twin(strong), targets, reduction="none") * kept).sum() / kept.numel()
    two = nn.functional.cross_entropy(twin(unlabelled), targets, reduction="none")[kept].mean()
    expected = 0.5 * supervised + 0.7 * one + two
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for mine, other in zip(student.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)
    torch.testing.assert_close(figures["loss/supervised"], 0.5 * supervised.detach())
    torch.testing.assert_close(figures["loss/term0"], 0.7 * one.detach())
    torch.testing.assert_close(figures["kept"], kept.float().mean())
    assert int(figures["live_classes"]) == len(targets[kept].unique())
    assert float(figures["flip_rate"]) == 0
    for c in range(K):
        share = kept[targets == c].float().mean()
        torch.testing.assert_close(figures["kept_by_class"][c], share, equal_nan=True)
    entropy = -(probabilities * probabilities.log()).sum(1).mean()
    torch.testing.assert_close(figures["entropy"], entropy)
    assert not any(value.requires_grad for value in figures.values())


TERMS = [
    {"view": "strong", "mixer": {"use": "cutmix", "probability": 1.0}, "scales": [1.0, 0.6, 1.5]},
    {"view": "weak", "normalizer": "per_image_kept"},
]


def test_parts_may_go_backward_one_by_one():
    """The sequential way holds one graph at a time and ends with the same gradients."""
    whole, parts = model(), model()
    calls = []

    def backward(loss):
        calls.append(float(loss.detach()))
        loss.backward()

    loss, figures = make(*TERMS, student=whole)(*data())
    loss.backward()
    other, again = make(*TERMS, student=parts)(*data(), backward=backward)
    assert not other.requires_grad
    assert len(calls) == 5
    torch.testing.assert_close(other, loss.detach())
    assert math.isclose(sum(calls), float(other), rel_tol=1e-5)
    for mine, theirs in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)
    assert figures.keys() == again.keys()


@pytest.mark.parametrize("corners", [False, True])
def test_scales_average_the_student_and_keep_the_targets(corners):
    student, (images, labels, unlabelled) = model(), data()
    term = {"view": "weak", "scales": [1.0, 0.5], "normalizer": "kept"}
    table = recipe(term, labeler={"use": "threshold", "threshold": 0})
    step = SemiSupervisedStep(student, table, kind="logits", num_classes=K, align_corners=corners)
    _, figures = step(images, labels, unlabelled)
    targets, how = student(unlabelled).argmax(1), {"mode": "bilinear", "align_corners": corners}
    losses = []
    for size in ((12, 10), (6, 5)):
        seen = nn.functional.interpolate(unlabelled, size=size, **how)
        logits = nn.functional.interpolate(student(seen), size=(12, 10), **how)
        losses.append(nn.functional.cross_entropy(logits, targets))
    torch.testing.assert_close(figures["loss/term0"], (sum(losses) / 2).detach())


def test_a_restored_step_goes_on_as_if_never_stopped():
    def model(seed=0):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, K, 1))

    def run(stop):
        student = model()
        optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
        step = make(*TERMS, student=student)
        seen = []
        for number in range(6):
            if number == stop:
                saved = copy.deepcopy([student.state_dict(), step.state_dict()])
                student = model(seed=9)
                optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
                step = make(*TERMS, student=student)
                student.load_state_dict(saved[0])
                step.load_state_dict(saved[1])
            loss, _ = step(*data(number))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            step.update()
            seen.append(float(loss.detach()))
        return seen

    assert run(None) == run(3)


def test_accumulated_gradients_draw_anew_and_leave_the_teacher_until_the_update():
    step = make({"view": "strong"})
    before = copy.deepcopy(step.teacher.state_dict())
    _, one = step(*data())
    _, two = step(*data())
    assert float(one["loss/term0"]) != float(two["loss/term0"])  # another strong view
    assert all(torch.equal(value, step.teacher.state_dict()[name]) for name, value in before.items())
    assert (step.calls, step.updates) == (2, 0)
    step.update()
    assert step.updates == 1


def test_automatic_mixed_precision_keeps_labels_and_losses_in_full_precision():
    step = make(*TERMS)
    with torch.autocast("cpu", torch.bfloat16):
        loss, figures = step(*data())
    assert loss.dtype == torch.float32
    loss.backward()
    full, _ = make(*TERMS)(*data())
    torch.testing.assert_close(loss, full, rtol=0.05, atol=0.02)
    assert all(torch.isfinite(p.grad).all() for p in step.model.parameters())
    assert figures["entropy"].dtype == torch.float32


def test_backward_passes_are_no_part_of_autocast():
    found = []
    with torch.autocast("cpu", torch.bfloat16):
        make(*TERMS)(*data(), backward=lambda loss: found.append(torch.is_autocast_enabled("cpu")))
        assert torch.is_autocast_enabled("cpu")
    assert found == [False] * 5


def test_compiled_models_are_trained_and_followed():
    student = model()
    compiled = torch.compile(student, backend="eager")
    step = make(*TERMS, student=compiled)
    loss, _ = step(*data())
    expected, _ = make(*TERMS)(*data())
    torch.testing.assert_close(loss, expected)
    loss.backward()
    with torch.no_grad():
        student[0].weight.add_(1)
    step.update()
    assert torch.equal(step.teacher.model[0].weight, student[0].weight)  # the first update copies


def test_the_caller_may_bring_strong_views_and_padding():
    images, labels, unlabelled = data()
    valid = torch.ones(3, 12, 10, dtype=torch.bool)
    valid[:, 6:] = False
    given = torch.zeros_like(unlabelled)
    step = make({"view": "strong", "normalizer": "kept"}, labeler={"use": "threshold", "threshold": 0})
    _, figures = step(images, labels, (unlabelled, given), valid=valid)
    student = step.model
    targets = student(unlabelled).argmax(1)
    losses = nn.functional.cross_entropy(student(given), targets, reduction="none")
    torch.testing.assert_close(figures["loss/term0"], losses[valid].mean().detach())


def test_padding_does_not_matter():
    images, labels, unlabelled = data()
    valid = torch.ones(3, 12, 10, dtype=torch.bool)
    valid[:, 6:] = False
    changed = unlabelled.clone()
    changed[:, :, 6:] = 5.0
    terms = [{"view": "weak", "normalizer": name} for name in ("kept", "valid", "per_image_kept")]
    torch.manual_seed(0)
    pixelwise = nn.Conv2d(3, K, 1)
    losses = [make(*terms, student=pixelwise)(images, labels, u, valid=valid)[0] for u in (unlabelled, changed)]
    assert torch.equal(*losses)


def test_a_forgotten_update_is_noticed(monkeypatch):
    monkeypatch.setattr("genaug_torch.step.FORGOTTEN", 3)
    forgetful, careful = make({"view": "weak"}), make({"view": "weak"})
    for number in range(5):
        careful(*data())
        careful.update()
        if number == 2:
            with pytest.warns(UserWarning, match="3 steps without an update"):
                forgetful(*data())
        else:
            forgetful(*data())


def test_burn_in_trains_on_labels_alone():
    step = make({"view": "weak"}, supervised={"weight": 0.5, "burn_in": 2})
    images, labels, unlabelled = data()
    for _ in range(2):
        _, figures = step(images, labels)
        assert set(figures) == {"loss/supervised"}
        step.update()
    with pytest.raises(SampleError, match="no unlabelled images"):
        step(images, labels)
    _, figures = step(images, labels, unlabelled)
    assert "loss/term0" in figures


def test_recipes_without_terms_are_supervised_training():
    student, (images, labels, _) = model(), data()
    step = SemiSupervisedStep(student, {}, kind="logits", num_classes=K)
    loss, _ = step(images, labels)
    torch.testing.assert_close(loss, nn.functional.cross_entropy(student(images), labels, ignore_index=IGNORE))


def test_the_class_table_of_a_recipe_is_used():
    table = recipe({"view": "weak"}, labels={"names": {3: "a", 7: "b", 9: "c", 11: "d"}, "ignore_index": 200})
    step = SemiSupervisedStep(model(), load_recipe(table), kind="logits")
    assert (step.num_classes, step.ignore_index) == (4, 200)
    table["labels"]["ignore_index"] = 2  # an id that no class has, but the third class has this index
    with pytest.raises(ConfigError, match="which is a class: labels here are class indices, 0 to 3"):
        SemiSupervisedStep(model(), table, kind="logits")
    assert SemiSupervisedStep(model(), table, kind="logits", ignore_index=255).ignore_index == 255
    with pytest.raises(ConfigError, match="5, but the recipe has 4 classes"):
        SemiSupervisedStep(model(), table, kind="logits", num_classes=5)
    with pytest.raises(ConfigError, match="num_classes"):
        SemiSupervisedStep(model(), recipe({"view": "weak"}), kind="logits")
    for count in (0, 256):
        with pytest.raises(ConfigError, match=f"num_classes: {count}. Allowed: 1 to 255"):
            SemiSupervisedStep(model(), recipe({"view": "weak"}), kind="logits", num_classes=count)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda x, y, u: (x, y.float(), u), "int64 class indices"),
        (lambda x, y, u: (x, y[:, :-1], u), r"\[B, 3, H, W\] and \[B, H, W\]"),
        (lambda x, y, u: (x, y + 1, u), r"labels from 1 to \d+\. Allowed: 0 to 3, or the ignore index 255"),
        (lambda x, y, u: (x, y - 1, u), r"labels from -1"),
        (lambda x, y, u: ((255 * x).byte(), y, u), r"images of type torch\.uint8.*images\.float\(\) / 255"),
    ],
)
def test_bad_batches_are_named(change, told):
    images, labels, unlabelled = data()
    labels[:, 0] = 0
    with pytest.raises(SampleError, match=told):
        make({"view": "weak"})(*change(images, labels, unlabelled))


def test_loaders_may_give_lists_of_views():
    images, labels, unlabelled = data()
    given = torch.zeros_like(unlabelled)
    expected, _ = make({"view": "strong"})(images, labels, (unlabelled, given))
    assert torch.equal(make({"view": "strong"})(images, labels, [unlabelled, given])[0], expected)
    expected, _ = make({"view": "weak"})(images, labels, unlabelled)
    assert torch.equal(make({"view": "weak"})(images, labels, [unlabelled])[0], expected)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda u: u[0], r"shape \(3, 12, 10\)\. Allowed: \[M, 3, H, W\], or a pair"),
        (lambda u: [u, u[:, :, :6]], r"\(3, 3, 12, 10\), \(3, 3, 6, 10\)"),
        (lambda u: [u, u, u], "a pair"),
        (lambda u: [u, None], "NoneType"),
        (lambda u: [], "none"),
        (lambda u: u[:0], "no unlabelled image in the batch"),
        (lambda u: (255 * u).byte(), r"unlabelled images of type torch\.uint8"),
    ],
)
def test_other_unlabelled_images_are_refused(change, told):
    images, labels, unlabelled = data()
    with pytest.raises(SampleError, match=told):
        make({"view": "weak"})(images, labels, change(unlabelled))


def test_strong_views_that_nobody_uses_are_noticed():
    images, labels, unlabelled = data()
    terms = {"view": "weak"}, {"view": "strong", "mix_at": "weak"}
    with pytest.warns(UserWarning, match="no term of the recipe uses the strong views"):
        make(*terms)(images, labels, (unlabelled, unlabelled))


def test_padding_is_told_by_booleans():
    with pytest.raises(SampleError, match=r"valid of type torch\.uint8"):
        make({"view": "weak"})(*data(), valid=torch.ones(3, 12, 10, dtype=torch.uint8))


@pytest.mark.parametrize("ignore", [-100, 254])
def test_mixers_take_the_ignore_index_of_the_step(ignore):
    images, labels, unlabelled = data(labelled=3)
    labels[0] = IGNORE  # this donor says nothing, and is not taken
    table = recipe({"mixer": {"use": "upc"}, "mix_at": "weak"}, labeler={"use": "threshold", "threshold": 0})
    found = []
    for index in (IGNORE, ignore):
        step = SemiSupervisedStep(model(), table, kind="logits", num_classes=K, ignore_index=index)
        found.append(step(images, labels.masked_fill(labels == IGNORE, index), unlabelled)[0])
    assert torch.equal(*found)


def test_losses_have_names_of_their_own():
    with pytest.raises(ConfigError, match=r"terms\.1\.name.*'a'"):
        make({"name": "a"}, {"name": "a"})
    with pytest.raises(ConfigError, match=r"terms\.0\.name.*'supervised'"):
        make({"name": "supervised"})


def test_models_with_another_number_of_classes_are_refused():
    with pytest.raises(SampleError, match="5 classes, the labels 4"):
        make({"view": "weak"}, student=nn.Conv2d(3, 5, 1))(*data())


def test_probabilities_that_are_called_logits_are_noticed():
    student = nn.Sequential(model(), nn.Softmax(1))
    with pytest.warns(UserWarning, match="use kind='probs'"):
        make({"view": "weak"}, student=student)(*data())
    late = make({"view": "weak"}, student=student, supervised={"burn_in": 1})
    late(*data())
    late.update()
    with pytest.warns(UserWarning, match="use kind='probs'"):
        late(*data())
    SemiSupervisedStep(student, recipe({"view": "weak"}), kind="probs", num_classes=K)(*data())


def test_mixers_that_need_labels_cannot_come_first():
    with pytest.raises(ConfigError, match="label-then-mix"):
        make({"mixer": {"use": "classmix"}, "order": "mix-then-label"})
