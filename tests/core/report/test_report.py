import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from report_page import Page

from genaug.cli.report import command
from genaug.engine import run
from genaug.errors import ConfigError, StoreError
from genaug.report import summary_lines, write_report
from genaug.store import SampleStore


def page_of(report):
    return Page(Path(report["page"]).read_text("utf-8"))


def pixels(page, alt):
    data = page.images[alt].partition("base64,")[2]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def test_figures_of_a_small_store_by_hand(painted):
    store, recipe = painted
    report = write_report(store, recipe)
    # a: 4 images, b: 3 and one refused. Brightness 0 and 40 are dropped; columns ignores 8 of 32 (a), 6 of 24 (b).
    assert report["samples"] == {"planned": 8, "made": 7, "refused": 1, "dropped": 4, "nothing_left": 0, "kept": 3}
    assert report["conditions"] == 2
    columns, dark = report["filters"]
    assert (columns["judged"], columns["dropped"], columns["pending"]) == (7, 0, 0)
    assert columns["ignored_share"] == pytest.approx((2 * 8 / 32 + 2 * 6 / 32) / 7)
    assert columns["kept_histogram"] == [0, 0, 0, 0, 0, 0, 0, 4, 0, 3]  # four at 75 %, three at 100 %
    assert columns["scores"] == {"kept": {"min": 0.75, "max": 1.0, "mean": pytest.approx(6 / 7)}}
    assert dark["dropped"] == 4
    assert dark["reasons"] == [{"reason": "brightness # below 50", "count": 4}]
    assert report["refused"] == [{"reason": "flagged, score 0.91", "count": 1}]

    sky, road, unseen = report["classes"]
    assert (sky["id"], sky["name"], sky["conditions"], sky["pixels"]) == (0, "sky", 2, 16 + 24)
    assert sky["share"] == pytest.approx(40 / 56)
    # Sky pixels of the seven samples: 4 x 16 of a, 3 x 24 of b; columns takes 8 and 6 from two samples each.
    assert sky["kept"]["columns"] == pytest.approx((4 * 16 - 2 * 8 + 3 * 24 - 2 * 6) / (4 * 16 + 3 * 24))
    # Dark keeps a_2, a_3 and b_2, which columns leaves whole.
    assert sky["kept"]["dark"] == sky["training"] == pytest.approx((2 * 16 + 24) / (4 * 16 + 3 * 24))
    assert road["training"] == pytest.approx(0.5)
    assert unseen["kept"] == {"columns": None, "dark": None}
    assert unseen["training"] is None
    assert unseen["share"] == 0

    on_disk = json.loads((store.path / "report" / "report.json").read_text("utf-8"))
    paths = {"page": str(store.path / "report" / "index.html"), "figures": str(store.path / "report" / "report.json")}
    assert {**on_disk, **paths} == report


def test_the_page_stands_alone_and_says_what_happened(painted):
    store, recipe = painted
    page = page_of(write_report(store, recipe))
    assert page.open == []
    assert page.requests == []
    for words in ("painted", "dropped by dark", "brightness 40.0 below 50", "flagged, score 0.91", "50 % left"):
        assert words in page.text
    assert "<b>road</b>" in page.text  # escaped: a class name is text
    assert "In no sample: never seen." in page.text
    assert set(page.images) >= {"mask of a", "real image of a", "generated a_0", "mask of a_0", "generated b_2"}
    assert "mask of a_2" not in page.images  # nothing is ignored there
    assert "generated b_3" not in page.images


def test_samples_of_which_nothing_is_left_are_counted_and_told(paint_recipe, masks):
    recipe = paint_recipe([{"use": "columns", "width": 8}], masks)  # all of images 0 and 1 of both conditions
    run(recipe, stages=["adapt", "generate", "filter"], device="cpu")
    report = write_report(SampleStore.open(recipe.output), recipe)
    counts = {"planned": 8, "made": 7, "refused": 1, "dropped": 0, "nothing_left": 4, "kept": 3}
    assert report["samples"] == counts
    page = page_of(report)
    assert page.text.count("✕ left out every pixel is ignored, nothing is left to train on") == 4
    assert "4 left out: no labelled pixel is left" in page.text
    assert "no filter alone 4 every pixel is ignored" in page.text
    lines = list(summary_lines(report))
    assert lines[0].endswith("1 refused, 0 dropped, 3 kept")
    assert lines[1] == "  left out though no filter drops them: 4 x every pixel is ignored, nothing is left to train on"


def test_pictures_show_image_mask_and_hatching(painted):
    store, recipe = painted
    page = page_of(write_report(store, recipe))
    np.testing.assert_array_equal(pixels(page, "generated a_2"), np.full((4, 8, 3), 80))
    np.testing.assert_array_equal(pixels(page, "real image of a")[0, 0], [250, 0, 0])
    mask = pixels(page, "mask of a_0")
    scale = mask.shape[1] // 8
    assert mask.shape == (4 * scale, 8 * scale, 3)
    expected = store.labels.colorize(np.kron(store["a_0"].mask, np.ones((scale, scale), np.uint8)))
    np.testing.assert_array_equal(mask[:, 2 * scale :], expected[:, 2 * scale :])
    hatched = {tuple(color) for color in mask[:, : 2 * scale].reshape(-1, 3)}
    assert len(hatched) == 2
    assert not hatched & {store.labels.color(i) for i in (*store.labels.ids, 255)}


def test_the_same_store_gives_the_same_bytes(painted, tmp_path):
    store, recipe = painted
    first, second = (write_report(store, recipe, output=tmp_path / name) for name in ("one", "two"))
    for key in ("page", "figures"):
        assert Path(first[key]).read_bytes() == Path(second[key]).read_bytes()
    assert {p.name for p in (tmp_path / "one").iterdir()} == {"index.html", "report.json"}


def test_without_a_recipe_and_with_a_title(painted, tmp_path):
    store, _ = painted
    report = write_report(store, output=tmp_path / "out", title="My <data>")
    page = page_of(report)
    assert report["name"] == "My <data>"
    assert "My <data>" in page.text
    assert "generated a_0" in page.images
    assert not any(alt.startswith("real image") for alt in page.images)


def test_real_images_that_have_gone_are_left_out(painted):
    store, recipe = painted
    (recipe.root / "images" / "a.png").unlink()
    page = page_of(write_report(store, recipe))
    assert "real image of a" not in page.images
    assert "real image of b" in page.images


def test_many_conditions_are_chosen_from(paint_recipe):
    masks = {f"c{i:02}": np.zeros((2, 4), np.uint8) for i in range(20)}
    masks["c05"][:, :2] = 3
    recipe = paint_recipe([{"use": "columns", "width": 1}], masks)
    run(recipe, stages=["adapt", "generate", "filter"], device="cpu")
    report = write_report(SampleStore.open(recipe.output), recipe, limit=8)
    page = page_of(report)
    assert "8 of 20 conditions" in page.text
    shown = [alt for alt in page.images if re.fullmatch(r"mask of c\d\d", alt)]
    assert len(shown) == len(set(shown)) == 8
    assert report["conditions"] == 20
    with pytest.raises(ConfigError, match="limit 0"):
        write_report(SampleStore.open(recipe.output), recipe, limit=0)


def test_an_unfinished_store_is_reported_as_far_as_it_is(paint_recipe, masks):
    recipe = paint_recipe([{"use": "dark"}], masks)
    run(recipe, stages=["adapt", "generate"], device="cpu")
    report = write_report(SampleStore.open(recipe.output))
    assert report["filters"][0]["pending"] == 7
    assert report["filters"][0]["judged"] == 0
    assert report["samples"]["dropped"] == 0
    assert any("genaug filter" in note for note in report["notes"])
    page = page_of(report)
    assert "not judged by dark" in page.text


def test_verdicts_on_other_files_do_not_count(painted):
    store, recipe = painted
    (store.path / "images" / "a_1.png").unlink()
    run(recipe, stages=["adapt", "generate"], device="cpu")  # makes a_1 again, with the same bytes
    assert write_report(SampleStore.open(store.path))["filters"][0]["pending"] == 0
    rows = (store.path / "filters" / "dark" / "verdicts.jsonl").read_text("utf-8").splitlines()
    stale = [json.dumps({**json.loads(r), "group": "other"}) if '"a_' in r else r for r in rows]
    (store.path / "filters" / "dark" / "verdicts.jsonl").write_text("\n".join(stale) + "\n", "utf-8")
    assert write_report(SampleStore.open(store.path))["filters"][1]["pending"] == 4


def test_a_store_without_filters(paint_recipe, masks):
    recipe = paint_recipe([], masks)
    run(recipe, device="cpu")  # the stage 'report' writes it
    report = json.loads((recipe.output / "report" / "report.json").read_text("utf-8"))
    assert report["filters"] == []
    assert report["classes"][0]["training"] == 1.0
    page = Page((recipe.output / "report" / "index.html").read_text("utf-8"))
    assert "100 % left" in page.text


def test_damaged_files_are_named_and_nothing_is_written(painted):
    store, _ = painted
    (store.path / "images" / "a_2.png").write_bytes(b"x")
    (store.path / "masks" / "b_1.png").unlink()
    with pytest.raises(StoreError, match=r"(?s)2 problems in.*images/a_2\.png: damaged.*masks/b_1\.png: the file is"):
        write_report(store)
    assert not (store.path / "report").exists()


# ---------------------------------------------------------------------- command line


def test_the_verb_prints_a_table_and_the_places(painted):
    store, _ = painted
    result = CliRunner().invoke(command, [str(store.path)])
    assert result.exit_code == 0, result.output
    assert "7 samples made, 1 refused, 4 dropped, 3 kept" in result.output
    assert "dropped by dark: 4 x brightness # below 50" in result.output
    assert re.search(r"columns +7 +0 +12", result.output)
    assert str(store.path / "report" / "index.html") in result.output
    lines = list(summary_lines(write_report(store)))
    assert all(line in result.output for line in lines)
    assert result.output.isascii()


def test_the_verb_prints_json(painted, tmp_path):
    store, _ = painted
    result = CliRunner().invoke(command, [str(store.path), "--json", "--limit", "1", "--output", str(tmp_path / "r")])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["page"] == str(tmp_path / "r" / "index.html")
    assert (tmp_path / "r" / "index.html").is_file()


def test_a_dry_run_names_what_it_would_write(painted):
    store, _ = painted
    before = sorted(store.path.rglob("*"))
    arguments = [str(store.path), "--real", str(store.path / "images"), "--labels", "camvid11", "--dry-run"]
    plan = json.loads(CliRunner().invoke(command, [*arguments, "--json"], catch_exceptions=False).stdout)
    folder = store.path / "report"
    assert (plan["samples"], plan["page"]) == (7, str(folder / "index.html"))
    assert (plan["quality"]["samples"], plan["quality"]["real"]) == (7, 7)
    assert "density" in plan["quality"]["sections"]
    shown = CliRunner().invoke(command, arguments, catch_exceptions=False).stdout
    for name in ("index.html", "report.json", "quality.html", "quality.json"):
        assert f"would write  {folder / name}" in shown
    assert sorted(store.path.rglob("*")) == before


def test_the_verb_on_a_folder_that_is_no_store(tmp_path):
    result = CliRunner().invoke(command, [str(tmp_path)])
    assert isinstance(result.exception, StoreError)
