import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noise_helpers import make_recipe

from genaug.engine.plan import make_plan, seed_of
from genaug.errors import DataError
from genaug.store.files import mask_hash


def plan_of(root, **changes):
    recipe = make_recipe(root, **changes)
    return recipe, make_plan(recipe.conditions(), recipe.generator(recipe.context()), recipe.rng)


@settings(deadline=None, max_examples=25)
@given(count=st.integers(1, 9), k=st.integers(1, 4), batch=st.integers(1, 7), odd=st.integers(0, 3))
def test_every_draw_is_in_one_batch_of_one_size(tmp_path_factory, count, k, batch, odd):
    root = tmp_path_factory.mktemp("plan")
    recipe, plan = plan_of(
        root, data={"count": count, "odd_every": odd}, generator={"images_per_mask": k, "batch_size": batch}
    )
    source = recipe.source()
    assert sorted(n for b in plan.batches for n in b) == list(range(count * k)) == list(range(len(plan)))
    assert plan.keys() == [f"m_{i}_{j}" for i in range(count) for j in range(k)]
    sizes = []
    for numbers in plan.batches:
        assert 1 <= len(numbers) <= batch
        (size,) = {source.load(plan.ids[n // k]).size for n in numbers}
        assert numbers == sorted(numbers)
        sizes.append(size)
    # Batches are full but for the last of each size.
    for size in set(sizes):
        lengths = [len(b) for b, s in zip(plan.batches, sizes, strict=True) if s == size]
        assert lengths[:-1] == [batch] * (len(lengths) - 1)
        assert plan.sizes[size] == sum(lengths)
    assert plan.hashes == [mask_hash(s.mask) for s in source]
    assert plan.pixels == k * sum(s.mask.size for s in source)


def test_the_generator_decides_what_may_share_a_batch(tmp_path):
    _, by_size = plan_of(tmp_path / "a")
    _, together = plan_of(tmp_path / "b", generator={"square": True})
    assert by_size.batches == [[0, 1, 2, 9], [10, 11], [3, 4, 5, 6], [7, 8]]
    assert together.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert by_size.sizes == together.sizes == {(32, 48): 6, (32, 24): 6}  # the samples', whatever shares a batch


def test_conditions_are_visited_in_order(tmp_path):
    recipe = make_recipe(tmp_path)
    seen = []
    make_plan(recipe.conditions(), recipe.generator(recipe.context()), recipe.rng, visit=lambda s: seen.append(s.id))
    assert seen == ["m_0", "m_1", "m_2", "m_3"]


def test_seeds_depend_on_recipe_seed_condition_and_k_alone(tmp_path):
    rng = make_recipe(tmp_path).rng
    seeds = {seed_of(rng, i, k) for i in ("a", "b", "a_1") for k in range(20)}
    assert len(seeds) == 60
    assert all(0 <= s < 2**63 for s in seeds)
    assert seed_of(rng, "a", 1) == seed_of(make_recipe(tmp_path / "other").rng, "a", 1)
    assert seed_of(make_recipe(tmp_path, seed=4).rng, "a", 1) not in seeds


def test_ids_must_be_file_names(tmp_path, monkeypatch):
    monkeypatch.setattr("genaug_noise.NoiseMasks.ids", lambda self: [".tmp_1"])
    monkeypatch.setattr("genaug_noise.NoiseMasks.load", lambda self, i: make_sample(i))
    with pytest.raises(DataError, match="starts with a dot"):
        plan_of(tmp_path)


def make_sample(sample_id):
    import numpy as np

    from genaug.types import Sample

    return Sample(sample_id, mask=np.ones((2, 2), np.uint8))
