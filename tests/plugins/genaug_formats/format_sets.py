"""Sample sets of any kind, and what becomes of them on the way out and in again."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from genaug.export import SampleSet, build_writer, export
from genaug.labels import LabelSpace
from genaug.recipe import load_recipe
from genaug.registry import default_registry
from genaug.types import Sample


@st.composite
def sample_sets(draw, max_id=255):
    """A class table of any ids and a few samples of any sizes with any of its ids, the ignore index included."""
    ids = draw(st.sets(st.integers(0, max_id), min_size=1, max_size=6))
    ignore = draw(st.sampled_from([i for i in (255, 0, 254, 7) if i not in ids]))
    labels = LabelSpace({i: f"class {i}" for i in ids}, ignore)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sizes = draw(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 9)), min_size=1, max_size=3))
    samples = [
        Sample(
            f"{draw(st.sampled_from(['a', 'b.c', 'd e', 'ä_0']))}{number}",
            rng.integers(0, 256, (*size, 3), dtype=np.uint8),
            rng.choice([*ids, ignore], size).astype(np.uint8),
        )
        for number, size in enumerate(sizes)
    ]
    return SampleSet(samples, labels, synthetic=draw(st.booleans()))


def round_trip(what, name, data, **options):
    """Export `what` and read it again by the source `data`; compare everything."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        export(what, build_writer(name, options, what.labels, default_registry()), root / "out", name=name)
        # The class table is the one that was written beside the files.
        found = list(load_recipe({"labels": "out/classes.json", "data": data}, root=root).source())
    lossless = options.get("image_format", "jpg" if name == "voc" else "png") == "png"
    found.sort(key=lambda sample: sample.id)
    wanted = sorted(what.samples, key=lambda sample: sample.id)
    assert [s.id for s in found] == [s.id for s in wanted]
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a.mask, b.mask)
        if lossless:
            np.testing.assert_array_equal(a.image, b.image)
        assert a.image.shape == b.image.shape
