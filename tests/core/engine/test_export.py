"""Exports: from stores and from labelled data, whole or not at all."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from noise_helpers import ROOT, environment, tree
from PIL import Image

from genaug.cli import group
from genaug.errors import ConfigError, DataError, SampleError, StoreError
from genaug.export import RECORD, SampleSet, Writer, export
from genaug.labels import LabelSpace
from genaug.store import SampleStore
from genaug.types import Sample

LABELS = LabelSpace({1: "grass", 4: "road"})
PIXEL = np.zeros((1, 1, 3), np.uint8)


def sample(name, class_id=1):
    return Sample(name, PIXEL, np.full((1, 1), class_id, np.uint8))


class Names(Writer):
    """A file per sample, called like it; stops at the sample `until`."""

    def __init__(self, until=None, error=None):
        self.until, self.error = until, error

    def write(self, samples, folder, what):
        (folder / "sub").mkdir()
        for one in samples:
            if one.id == self.until:
                raise self.error
            (folder / "sub" / one.id).write_bytes(one.mask.tobytes())


def write(target, *names, writer=None, samples=None):
    what = SampleSet(samples or [sample(n) for n in names], LABELS, synthetic=False)
    return export(what, writer or Names(), target, name="names")


def left_behind(folder):
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


def test_a_finished_export_is_all_there_is(tmp_path):
    report = write(tmp_path / "deep/out", "a", "b")
    assert sorted(tree(tmp_path / "deep/out")) == ["classes.json", RECORD, "sub/a", "sub/b"]
    assert report == {
        "to": "names", "samples": 2, "synthetic": False, "files": 3, "output": str(tmp_path / "deep/out"),
        "bytes": sum(len(v) for k, v in tree(tmp_path / "deep/out").items() if k != RECORD), "replaced": False,
    }  # fmt: skip
    assert LabelSpace.from_config(json.loads((tmp_path / "deep/out/classes.json").read_text())) == LABELS
    assert left_behind(tmp_path / "deep") == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("a bug"), KeyboardInterrupt()])
def test_an_export_that_fails_leaves_no_trace_and_keeps_the_earlier_one(tmp_path, error):
    target = tmp_path / "out"
    for earlier in ({}, None):
        if earlier is None:
            write(target, "old")
            earlier = tree(target)
        kind = StoreError if isinstance(error, OSError) else type(error)
        with pytest.raises(kind) as told:
            write(target, "a", "b", writer=Names("b", error))
        assert (tree(target) if target.exists() else {}) == earlier
        assert left_behind(tmp_path) == []
    if kind is StoreError:
        assert "No space left on device. Nothing was left behind" in str(told.value)


def test_only_earlier_exports_are_replaced(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    assert not write(target, "a")["replaced"]
    assert write(target, "b", "c")["replaced"]
    assert sorted(tree(target)) == ["classes.json", RECORD, "sub/b", "sub/c"]
    (target / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="earlier export of 3 files, but files were added"):
        write(target, "d")
    (target / "notes.txt").unlink()
    (target / "sub/b").unlink()
    with pytest.raises(StoreError, match="added, renamed or removed since"):
        write(target, "d")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/x").write_text("")
    with pytest.raises(StoreError, match="not empty, and no earlier export"):
        write(tmp_path / "other", "d")
    for name, content in (("damaged", "{"), ("empty", "{}"), ("list", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / RECORD).write_text(content)
        with pytest.raises(StoreError, match="no earlier export"):
            write(tmp_path / name, "d")
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "list")
    for name in ("file", "link"):
        with pytest.raises(StoreError, match="is a link or a file"):
            write(tmp_path / name, "d")


@pytest.mark.parametrize("name", [".a", "#a", " a", "a ", "a\nb", "a\tb"])
def test_ids_that_files_and_lists_cannot_hold_are_refused(tmp_path, name):
    with pytest.raises(SampleError, match="an id that files and lists cannot hold"):
        write(tmp_path / "out", name)


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        ([sample("a"), sample("a")], "sample 'a': two samples have this id"),
        ([sample("a"), sample("b"), sample("A")], "sample 'A': 'a' differs from it by capitals.*rename one"),
        ([sample("\u00e9"), sample("e\u0301")], "differs from it by capitals or the encoding of accents"),
        ([Sample("a", PIXEL)], "sample 'a': there is no mask.*'genaug plugins' says which formats"),
        ([Sample("a", mask=np.ones((1, 1), np.uint8))], "sample 'a': there is no image"),
        ([sample("a", 7)], r"ids outside the class table: \[7\]"),
    ],
)
def test_samples_that_no_format_can_hold_are_refused(tmp_path, samples, told):
    with pytest.raises((SampleError, DataError), match=told):
        write(tmp_path / "out", samples=samples)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_one_is_in_will_do_if_it_is_empty(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write(".", "a")
    assert sorted(tree(tmp_path / "here")) == ["classes.json", RECORD, "sub/a"]


def test_nothing_to_export_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="there is no sample to export"):
        export(SampleSet([], LABELS, synthetic=False), Names(), tmp_path / "out", name="names")


def test_samples_are_read_one_at_a_time(tmp_path):
    read = []

    class Lazy:
        def __len__(self):
            return 50

        def __iter__(self):
            for number in range(50):
                read.append(number)
                yield sample(f"s{number}")

    class Counting(Writer):
        def write(self, samples, folder, what):
            for number, _ in enumerate(samples, start=1):
                assert len(read) == number

    export(SampleSet(Lazy(), LABELS, synthetic=False), Counting(), tmp_path / "out", name="counting")
    assert len(read) == 50


def test_a_writer_that_forgets_samples_is_found_out(tmp_path):
    class Lazy(Writer):
        def write(self, samples, folder, what):
            next(samples)

    with pytest.raises(SampleError, match=r"Lazy, .*: 1 of 2 samples were written"):
        write(tmp_path / "out", "a", "b", writer=Lazy())
    assert list(tmp_path.iterdir()) == []


def test_a_killed_export_leaves_no_target_and_the_next_one_cleans_up(tmp_path):
    script = f"""
import sys, time
sys.path[:0] = [{str(ROOT / "tests/core/engine")!r}]
from test_export import *
class Slow(Names):
    def write(self, samples, folder, what):
        super().write(samples, folder, what)
        print("written", flush=True)
        time.sleep(60)
write({str(tmp_path / "out")!r}, "a", writer=Slow())
"""
    process = subprocess.Popen([sys.executable, "-c", script], env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "written\n"
    with pytest.raises(StoreError, match="another process"):
        write(tmp_path / "out", "b")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "out").exists()
    assert left_behind(tmp_path) == [".out.tmp-export"]
    write(tmp_path / "out", "b")
    assert sorted(tree(tmp_path / "out")) == ["classes.json", RECORD, "sub/b"]
    assert left_behind(tmp_path) == []
    # Killed between its two renames, an export has moved the earlier one away: the next one puts it back first.
    (tmp_path / ".out.tmp-export").mkdir()
    (tmp_path / "out").rename(tmp_path / ".out.tmp-export/replaced")
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "out", "c", writer=Names("c", ZeroDivisionError()))
    assert sorted(tree(tmp_path / "out")) == ["classes.json", RECORD, "sub/b"]


# ---------------------------------------------------------------------- the verb


def test_the_verb_writes_what_training_sees_of_a_store(whole, tmp_path):
    out = tmp_path / "out"
    view = SampleStore.open(whole / "out").training_view()
    plan = CliRunner().invoke(group, ["export", str(whole / "out"), str(out), "--to", "folder", "--dry-run", "--json"])
    assert plan.exit_code == 0, plan.output
    assert not out.exists()
    result = CliRunner().invoke(group, ["export", str(whole / "out"), "--to", "folder", str(out), "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["samples"], report["dropped"], report["synthetic"]) == (len(view), 11 - len(view), True)
    assert json.loads(plan.stdout).items() <= (report | {"dry_run": True}).items()
    written = tree(out)
    assert {k for k in written if k.startswith("masks/")} == {f"masks/{key}.png" for key in view.keys}
    for one in view:
        with Image.open(out / "masks" / f"{one.id}.png") as mask, Image.open(out / "images" / f"{one.id}.png") as image:
            np.testing.assert_array_equal(np.asarray(mask), one.mask)
            np.testing.assert_array_equal(np.asarray(image), one.image)
    again = CliRunner().invoke(group, ["export", str(whole / "out"), str(out), "--to", "folder", "image_format=jpg"])
    assert f"folder: {len(view)} samples" in again.stdout
    assert "replaces an earlier export" in again.stdout


def test_the_verb_writes_labelled_data_and_tells_of_their_problems(write_pairs, tmp_path):
    write_pairs({"a": np.array([[1, 4]], np.uint8), "b": np.array([[255, 4]], np.uint8)})
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "labels: {1: grass, 4: road}\ndata: {format: folder, images: images, masks: masks}\n"
        "generator: {use: matchmask}\noutput: nothing\n"
    )
    result = CliRunner().invoke(
        group, ["export", str(recipe), str(tmp_path / "voc"), "--to", "voc", "--data", "split=val"]
    )
    assert result.exit_code == 0, result.output
    assert (tmp_path / "voc/ImageSets/Segmentation/val.txt").read_text() == "a\nb\n"
    no_store = CliRunner().invoke(group, ["export", str(recipe), str(tmp_path / "x"), "--to", "voc"])
    assert no_store.exit_code == 2
    assert "no such folder" in no_store.stderr
    for inside in ("images/sub", "masks/sub", "images/../masks/deep/er"):
        for more in ([], ["--dry-run"]):
            refused = CliRunner().invoke(
                group, ["export", str(recipe), f"{tmp_path}/{inside}", "--to", "voc", "--data", *more]
            )
            assert refused.exit_code == 2
            assert "from which the samples are read" in refused.stderr
        assert not (tmp_path / inside).exists()
    write_pairs({"b": np.array([[9, 4]], np.uint8)})
    told = CliRunner().invoke(group, ["export", str(recipe), str(tmp_path / "x"), "--to", "voc", "--data"])
    assert told.exit_code == 1
    assert "id 9 is not in the class table: 1x: masks/b.png" in told.stderr
    assert not (tmp_path / "x").exists()


def test_the_verb_tells_of_wrong_words(whole, tmp_path):
    def error(*arguments):
        result = CliRunner().invoke(group, ["export", str(whole / "out"), str(tmp_path / "out"), *arguments])
        assert result.exit_code == 2
        return result.stderr

    assert "no writer is called 'coco-panotic'. Did you mean 'coco-panoptic'?" in error("--to", "coco-panotic")
    assert "Did you mean 'image_format'?" in error("--to", "folder", "image_fromat=png")
    assert "--data" in error("--to", "folder", "--data")
    unknown = CliRunner().invoke(group, ["export", "nowhere/b", "out", "--to", "folder"])
    assert unknown.exit_code == 2
    assert "there is no folder and no recipe 'nowhere/b'. Allowed: a folder, a recipe file" in unknown.stderr
    inside = CliRunner().invoke(group, ["export", str(whole / "out"), str(whole / "out/images/x"), "--to", "folder"])
    assert "out/images, from which the samples are read" in inside.stderr
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("")
    for more in ([], ["--dry-run"]):
        assert "the folder is not empty, and no earlier export" in error("--to", "folder", *more)
