import json
import re
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from report_page import Page

from genaug.cli.report import command
from genaug.errors import ConfigError, DataError, SampleError, StoreError, UnknownComponentError
from genaug.labels import LabelSpace
from genaug.recipe import BuildContext
from genaug.registry import GROUP, Registry, default_registry
from genaug.report import measure as measure_module
from genaug.report.charts import chart
from genaug.report.opening import find_place
from genaug.report.quality import build_sections, quality_lines, write_quality
from genaug.report.sample_sets import StoreSet
from genaug.store import SampleStore

LABELS = LabelSpace({0: "sky", 3: "<b>road</b>"})
PLUGIN = """
import numpy as np
from genaug import Component, hookimpl
from genaug.config import Options
from genaug.report.figures import Conclusion, Figures, Statistic, Table

class BrightnessOptions(Options):
    bonus: float = 0.0

class NamedOptions(Options):
    model: str

class Brightness(Figures):
    title, ranked = "Brightness", ("mean",)
    about = "How <bright> images are."
    def __init__(self, bonus=0.0):
        self.bonus = bonus
    def prepare(self, *, synthetic, real):
        self.sizes = dict(synthetic), dict(real)
    def statistics(self):
        return [
            Statistic("mean", "mean grey value", "mean", worse="lower", harm="darker"),
            Statistic("red", "share of red", "red", per="all"),
            Statistic("sky", "share of images", "sky", by="sky"),
            Statistic("absent", "never there", "absent"),
        ]
    def measure(self, samples):
        return [
            {"mean": s.image.mean() + self.bonus, "red": float(s.image[..., 0].sum()), "all": float(s.image.sum()),
             "sky": np.nan if s.mask is None else float((s.mask == 0).any()), "corner": s.image[0, 0]}
            for s in samples
        ]
    def conclude(self, synthetic, real, rng):
        assert synthetic.columns["corner"].shape == (len(synthetic), 3)
        table = Table("Corners", ("set", "grey"), (("real", float(real.columns["corner"].mean())), ("none", None)))
        return Conclusion({"sizes": [len(s) for s in self.sizes]}, (table,), notes=("look at <this>",))

class Named(Brightness):
    title, parallel = "Named", False
    def __init__(self, model):
        super().__init__()

class Uneven(Brightness):
    def measure(self, samples):
        return super().measure(samples)[1:]

@hookimpl
def genaug_components():
    yield Component("figures", "brightness", "figures_plugin:Brightness", config="figures_plugin:BrightnessOptions")
    yield Component("figures", "named", "figures_plugin:Named", config="figures_plugin:NamedOptions")
"""


@pytest.fixture
def registry(install):
    default_registry()  # kept for the whole process, so looked at before there is a plugin that will go away
    install("figures-plugin", {"figures_plugin": PLUGIN}, {"figures": "figures_plugin"})
    return Registry(
        [EntryPoint("core", "genaug.sources.plugin", GROUP), EntryPoint("figures", "figures_plugin", GROUP)]
    )


@pytest.fixture
def folder(tmp_path):
    """Return a function that writes a folder of images, one grey value each, with masks unless told."""

    def write(name, greys, *, masks=True, size=(6, 8)):
        for kind in ("images", "masks")[: 1 + masks]:
            (tmp_path / name / kind).mkdir(parents=True)
        for i, grey in enumerate(greys):
            Image.fromarray(np.full((*size, 3), grey, np.uint8)).save(tmp_path / name / "images" / f"s{i:02}.png")
            if masks:
                mask = np.full(size, 3 if i % 2 else 0, np.uint8)
                Image.fromarray(mask).save(tmp_path / name / "masks" / f"s{i:02}.png")
        return tmp_path / name

    return write


def opened(path, **options):
    return find_place(path, generated=True).open(LABELS, **options)


def write(made, own, registry, output, options=None, **more):
    sections = build_sections(BuildContext(Path(), LABELS, registry), options or {})
    return write_quality(made, own, sections, labels=LABELS, output=output, **more)


def test_figures_flags_and_page(folder, registry, tmp_path):
    made, own = folder("made", range(60, 100)), folder("own", range(120, 150), size=(6, 9))
    report = write(opened(made), opened(own), registry, tmp_path / "out", title="Mine & <yours>")
    assert list(report["sections"]) == ["brightness"]  # the other one needs a model
    section = report["sections"]["brightness"]
    mean, red, sky = section["statistics"]  # what no image has is left out
    assert mean["synthetic"]["value"] == np.mean(range(60, 100))
    assert (mean["synthetic"]["images"], mean["synthetic"]["without"]) == (40, 0)
    assert mean["synthetic"]["median"] == pytest.approx(79.5)
    low, high = mean["difference"]["interval"]
    assert low < np.mean(range(60, 100)) - np.mean(range(120, 150)) < high < 0
    assert red["real"]["value"] == pytest.approx(1 / 3)
    assert "sd" not in red["real"]
    assert (sky["by"], sky["real"]["value"]) == ("sky", 0.5)
    assert section["sizes"] == [1, 1]
    assert [(f["section"], f["harm"]) for f in report["flags"]] == [("brightness", "darker")]
    assert json.loads(Path(report["figures"]).read_text("utf-8"))["sections"].keys() == {"brightness"}

    page = Page(Path(report["page"]).read_text("utf-8"))
    assert page.open == []
    assert page.requests == []
    for words in (
        "Mine & <yours>",
        "How <bright> images are.",
        "look at <this>",
        "darker",
        "Corners",
        "A flag is raised",
    ):
        assert words in page.text
    assert {"synthetic s00", "synthetic s39", "real s14", "mask of synthetic s00"} <= set(page.images)
    assert "synthetic s20" not in page.images  # neither among the worst nor among the best

    lines = "\n".join(quality_lines(report))
    assert "DARKER (brightness): mean grey value: 79.5" in lines
    assert re.search(r"By class.*\n +share of images\n +sky +0\.5 / 0\.5\n", lines)
    assert "note: look at <this>" in lines


def test_alike_sets_raise_no_flag_and_touching_intervals_do_not(folder, registry, tmp_path):
    numbers = np.random.default_rng(0)
    greys = numbers.normal(100, 20, 60).clip(0, 255).astype(int)
    made, own = folder("made", greys[:30]), folder("own", greys[30:])
    report = write(opened(made), opened(own), registry, tmp_path / "out")
    assert report["flags"] == []
    assert "Nothing found" in Path(report["page"]).read_text("utf-8")
    assert list(quality_lines(report))[-1].startswith("Nothing found")
    single = write(opened(made, limit=2), opened(own, limit=1), registry, tmp_path / "out")
    assert single["sections"]["brightness"]["statistics"][0]["real"]["interval"] is None
    assert (single["real"]["images"], single["real"]["of"]) == (1, 30)


def test_a_folder_that_is_not_there_is_told(folder, tmp_path):
    own = folder("own", range(3))
    for arguments in ([str(own), "--real", "b"], ["b", "--real", str(own)], ["b"]):
        with pytest.raises(ConfigError, match=r"there is no folder and no recipe 'b'\. Allowed: a folder"):
            CliRunner().invoke(command, arguments, catch_exceptions=False)


def test_few_images_raise_no_flag_and_say_so(folder, registry, tmp_path):
    made, own = folder("made", range(10, 22)), folder("own", range(200, 212))
    few, enough = (write(opened(made), opened(own, limit=n), registry, tmp_path / str(n)) for n in (9, 10))
    assert [len(report["flags"]) for report in (few, enough)] == [0, 1]
    row = few["sections"]["brightness"]["statistics"][0]
    assert (row["withheld"], row["apart"], row["synthetic"]["groups"], row["real"]["groups"]) == (True, False, 12, 9)
    lines = list(quality_lines(few))
    note = "no flag is raised by mean grey value: of 12 synthetic and 9 real images"
    assert any(note in line for line in lines)
    assert lines[-1].startswith("No flag, but some figures are of too few images to tell")
    for words in (note, lines[-1], "of at least 10 images"):
        assert words in Page(Path(few["page"]).read_text("utf-8")).text
    assert enough["sections"]["brightness"]["notes"] == ["look at <this>"]


def test_a_difference_is_seen_in_what_is_printed(folder, registry, tmp_path):
    made, own = folder("made", [100] * 12, size=(30, 40)), folder("own", [100] * 12, size=(30, 40))
    for file in (own / "images").iterdir():
        image = np.array(Image.open(file))
        image[0, 0, 0] = 101
        Image.fromarray(image).save(file)
    report = write(opened(made), opened(own), registry, tmp_path / "out")
    (flag,) = report["flags"]
    assert flag["text"] == "mean grey value: 100 (100 to 100), real images 100.0003 (100.0003 to 100.0003)"
    assert "100 [100 to 100]" in next(line for line in quality_lines(report) if line.startswith("  mean grey"))
    assert write(opened(made), opened(made, limit=11), registry, tmp_path / "same")["flags"] == []


def test_the_number_of_processes_changes_no_byte(folder, registry, tmp_path, monkeypatch):
    monkeypatch.setattr(measure_module, "_FEW", 1)
    made, own = folder("made", range(60, 90)), folder("own", range(70, 100), masks=False)
    options = {"named": {"model": "x"}, "brightness": {"bonus": 2.0}}
    one, two = (
        write(opened(made), opened(own), registry, tmp_path / str(n), options, workers=n, seed=7) for n in (1, 2)
    )
    assert list(one["sections"]) == ["brightness", "named"]
    for key in ("page", "figures"):
        assert Path(one[key]).read_bytes() == Path(two[key]).read_bytes()
    other = write(opened(made), opened(own), registry, tmp_path / "seed", options, seed=8)
    assert other["sections"]["brightness"] != one["sections"]["brightness"]


def test_errors_of_workers_come_home(folder, registry, tmp_path, monkeypatch):
    monkeypatch.setattr(measure_module, "_FEW", 1)
    made, own = folder("made", range(30)), folder("own", range(30))
    opened_made = opened(made)
    (made / "images" / "s17.png").write_bytes(b"x")
    with pytest.raises(DataError, match="s17"):
        write(opened_made, opened(own), registry, tmp_path / "out", workers=2)
    assert not (tmp_path / "out").exists()


def test_all_bad_files_of_both_sets_are_named_at_once(folder, painted, registry, tmp_path):
    made, own = folder("made", range(8)), folder("own", range(30, 42))
    for number in range(8):
        (made / "images" / f"s{number:02}.png").write_bytes(b"x")
    (own / "masks" / "s11.png").unlink()
    with pytest.raises(DataError, match="2 problems in the images") as caught:
        write(opened(made), opened(own), registry, tmp_path / "out")
    assert all(f"images/s{number:02}.png" in str(caught.value) for number in range(8))  # 'check' names 5 without --all
    assert "own/images/s11.png" in str(caught.value)
    store, _ = painted
    for name in ("a_1", "b_1"):
        (store.path / "images" / f"{name}.png").write_bytes(b"x")
    with pytest.raises(StoreError, match=r"(?s)2 problems in the images.*a_1\.png: damaged.*b_1\.png: damaged"):
        write(opened(store.path), opened(folder("sound", range(9))), registry, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_of_one_condition_count_as_one(painted, registry, tmp_path):
    store, _ = painted
    everything, kept = StoreSet(store.path), StoreSet(store.path, kept=True)
    assert everything.keys == store.keys()
    assert everything.groups().tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert set(kept.keys) == {"a_2", "a_3", "b_2"}
    assert everything.size("a_0") == (4, 8)
    sections = build_sections(BuildContext(Path(), store.labels, registry), {})
    report = write_quality(everything, kept, sections, labels=store.labels, output=tmp_path / "out")
    assert (report["synthetic"]["images"], report["synthetic"]["groups"]) == (7, 2)


def numbered(folder, name, levels, each=4):
    """A folder of videos of `each` equal frames: levels[v] is the grey value of all frames of video v."""
    path = folder(name, [grey for grey in levels for _ in range(each)])
    for kind in ("images", "masks"):
        for i, file in enumerate(sorted((path / kind).iterdir())):
            file.rename(file.with_name(f"v{i // each:02}_{i % each}.png"))
    return path


def test_frames_of_one_video_count_as_one(folder, registry, tmp_path):
    greys = np.linspace(70, 130, 12).astype(int) - np.array([[17], [0]])  # too little to tell with 12 videos
    made, own = (numbered(folder, name, levels) for name, levels in zip(("made", "own"), greys, strict=True))
    alone = write(opened(made), opened(own), registry, tmp_path / "alone")
    by = r"^(v\d+)_"
    grouped = write(opened(made, by=by), opened(own, by=by), registry, tmp_path / "grouped")
    assert [len(r["flags"]) for r in (alone, grouped)] == [1, 0]
    assert (grouped["real"]["groups"], grouped["real"]["by"], grouped["real"]["unmatched"]) == (12, by, 0)
    for name in ("synthetic", "real"):
        (low, high), (wide_low, wide_high) = (
            r["sections"]["brightness"]["statistics"][0][name]["interval"] for r in (alone, grouped)
        )
        assert (wide_high - wide_low) / (high - low) == pytest.approx(2, rel=0.15)  # the root of four equal frames
    first = next(quality_lines(grouped))
    assert first.endswith(f"48 synthetic images in 12 groups by '{by}' against 48 real ones in 12 groups by '{by}'")
    assert f"48 real images in 12 groups by '{by}' (8x6)" in Page(Path(grouped["page"]).read_text("utf-8")).text
    few = write(opened(made, by=r"^v(\d)"), opened(own), registry, tmp_path / "few")  # v0 and v1
    assert few["sections"]["brightness"]["statistics"][0]["withheld"]


def test_what_groups_images(folder, painted, registry, tmp_path):
    path = numbered(folder, "videos", range(3), each=2)
    groups = {by: opened(path, by=by).groups().tolist() for by in (r"v\d+", r"^v(\d+)_(\d)", r"v0[01]", r"v(00)?")}
    assert groups == {
        r"v\d+": [0, 0, 1, 1, 2, 2],
        r"^v(\d+)_(\d)": [0, 1, 2, 3, 4, 5],
        r"v0[01]": [0, 0, 1, 1, 2, 3],  # names in which nothing is found are groups of their own
        r"v(00)?": [0, 0, 1, 1, 1, 1],  # a parenthesis that matches nothing tells too
    }
    assert opened(path, by=r"v0[01]").unmatched() == 2
    store, _ = painted
    assert StoreSet(store.path, by="[ab]").groups().tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert StoreSet(store.path, by="^()").groups().tolist() == [0] * 7
    both = write(opened(path, by="v00"), opened(path, by="v00"), registry, tmp_path / "out")
    assert "in 5 groups by 'v00', which is in the names of all but 4 images" in next(quality_lines(both))
    with pytest.raises(ConfigError, match=r"group: '\(': .*Allowed: a regular expression"):
        opened(path, by="(")
    with pytest.raises(ConfigError, match=r"'drive' is found in no name\. Allowed: .*'v00_0', 'v00_0'"):
        write(opened(path, by="drive"), opened(path, by="drive"), registry, tmp_path / "out")


def test_wrong_names_and_records(folder, registry, tmp_path):
    context = BuildContext(Path(), LABELS, registry)
    with pytest.raises(UnknownComponentError, match=r"brightnes.*Did you mean 'brightness'"):
        build_sections(context, {"brightnes": {}})
    with pytest.raises(ConfigError, match="bonus"):
        build_sections(context, {"brightness": {"bonus": "much"}})
    with pytest.raises(ConfigError, match=r"brightness: 3.*brightness\.key=value"):
        build_sections(context, {"brightness": 3})
    with pytest.raises(ConfigError, match="no section is left"):
        build_sections(context, {}, ["brightness"])
    path = folder("made", range(3))
    from figures_plugin import Uneven

    with pytest.raises(SampleError, match="2 records for 3 samples"):
        write_quality(opened(path), opened(path), {"uneven": Uneven()}, labels=LABELS, output=tmp_path / "out")
    with pytest.raises(ConfigError, match="0 processes"):
        write_quality(opened(path), opened(path), {}, labels=LABELS, output=tmp_path / "out", workers=0)


def test_places(folder, painted, tmp_path):
    store, recipe = painted
    assert find_place(store.path, generated=True).kind == "store"
    assert find_place(folder("both", [1]), generated=False).has_masks
    alone = find_place(folder("alone", [1, 2], masks=False), generated=False)
    assert not alone.has_masks
    assert [s.mask for s in map(alone.open(LABELS).load, ("s00", "s01"))] == [None, None]
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="neither a store nor images"):
        find_place(tmp_path / "nothing", generated=False)
    assert len(SampleStore.open(recipe.output)) == 7


def test_charts():
    values = {"synthetic": np.array([1.0, 2.0, np.nan]), "real": np.array([5.0, 5.0])}
    drawn = chart(values, {"real": (5.0, 4.0, 6.0)})
    assert (drawn.low, drawn.high) == (pytest.approx(1.0, abs=0.01), 6.0)
    assert set(drawn.bands) == {"real"}
    assert drawn.bands["real"].low < drawn.bands["real"].value < drawn.bands["real"].high
    nothing = np.array([np.nan])
    assert chart({"synthetic": nothing, "real": nothing}, {}) is None
    assert chart({"synthetic": np.zeros(2), "real": nothing}, {}).outlines["real"] == ""


# ---------------------------------------------------------------------- command line


def test_the_verb_compares_folders(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made, own = folder("made", range(60, 64), size=(70, 80)), folder("own", range(120, 124), size=(70, 80))
    (tmp_path / "labels.json").write_text(json.dumps({"0": "sky", "3": "road"}))
    arguments = [str(made), "--real", str(own), "--workers", "1"]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    for words in ("Density of the masks", "Fidelity of the images", "Coverage of the classes", "Near-duplicates"):
        assert words in result.stdout
    assert result.stdout.isascii()
    assert (tmp_path / "quality-report" / "quality.html").is_file()
    short = [*arguments, "--skip", "fidelity", "--json", "--output", "out", "--group", "s0[01]", "duplicates.radius=0"]
    result = CliRunner().invoke(command, short)
    assert result.exit_code == 0, result.output
    quality = json.loads(result.stdout)["quality"]
    assert set(quality["sections"]) == {"coverage", "density", "duplicates"}
    assert [quality[name]["groups"] for name in ("synthetic", "real")] == [4, 4]  # s00, s01, and the others
    (tmp_path / "labels.json").unlink()
    result = CliRunner().invoke(command, arguments)
    assert isinstance(result.exception, ConfigError)
    assert "--labels" in str(result.exception)


def test_the_verb_refuses_sections_without_real_images(painted):
    store, _ = painted
    result = CliRunner().invoke(command, [str(store.path), "duplicates.radius=0"])
    assert "without --real" in str(result.exception)
