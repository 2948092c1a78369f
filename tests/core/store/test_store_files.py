import errno
import io
import os
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from genaug.errors import StoreError
from genaug.store.files import (
    SOURCE_TYPE,
    decode_png,
    encode_image,
    encode_mask,
    file_record,
    json_text,
    mask_hash,
    read_recorded,
    remove_temporary,
    write_whole,
)

SIZES = st.tuples(st.integers(1, 20), st.integers(1, 20))


@settings(deadline=None, max_examples=30)
@given(SIZES.flatmap(lambda size: hnp.arrays(np.uint8, (*size, 3))))
def test_image_round_trip(image):
    assert np.array_equal(decode_png(encode_image(image), "RGB", where="x"), image)


@settings(deadline=None, max_examples=30)
@given(SIZES.flatmap(lambda size: hnp.arrays(np.uint8, size)))
def test_mask_round_trip(mask):
    assert np.array_equal(decode_png(encode_mask(mask), "L", where="x"), mask)


def test_images_say_that_a_model_made_them():
    with Image.open(io.BytesIO(encode_image(np.zeros((2, 2, 3), np.uint8)))) as picture:
        assert picture.text["Software"] == "genaug"
        packet = picture.text["XML:com.adobe.xmp"]
    (description,) = ElementTree.fromstring(packet)[0]
    assert SOURCE_TYPE in description.attrib.values()


def test_mask_hash_sees_shape_and_pixels():
    zeros = np.zeros((2, 3), np.uint8)
    assert mask_hash(zeros) == mask_hash(zeros.copy())
    assert mask_hash(zeros) != mask_hash(zeros.T.copy())
    other = zeros.copy()
    other[1, 2] = 1
    assert mask_hash(zeros) != mask_hash(other)
    assert mask_hash(None) is None


NOISE = encode_mask(np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8))


@pytest.mark.parametrize("data", [b"", b"no picture", NOISE[:900], NOISE[:20]], ids=["empty", "text", "half", "head"])
def test_a_broken_png_is_named(data, tmp_path):
    with pytest.raises(StoreError, match=r"a\.png: damaged PNG.*--repair"):
        decode_png(data, "L", where=tmp_path / "a.png")


def test_a_png_of_another_mode_is_refused():
    with pytest.raises(StoreError, match=r"mode RGB.*Allowed: L"):
        decode_png(encode_image(np.zeros((2, 2, 3), np.uint8)), "L", where="x")


def test_recorded_bytes_are_checked(tmp_path):
    write_whole(tmp_path / "a", b"abc", tag="t")
    record = file_record("a", b"abc")
    assert read_recorded(tmp_path, record) == b"abc"
    (tmp_path / "a").write_bytes(b"abd")
    with pytest.raises(StoreError, match="content is not what was written"):
        read_recorded(tmp_path, record)
    (tmp_path / "a").write_bytes(b"ab")
    with pytest.raises(StoreError, match="2 bytes, 3 were written"):
        read_recorded(tmp_path, record)
    (tmp_path / "a").unlink()
    with pytest.raises(StoreError, match="missing"):
        read_recorded(tmp_path, record)


@pytest.mark.parametrize(
    ("number", "text"),
    [(errno.ENOSPC, "disk is full"), (errno.EFBIG, "larger than"), (errno.EROFS, "read-only"), (errno.EIO, "error")],
)
def test_a_failed_write_leaves_nothing_and_keeps_the_old_file(tmp_path, monkeypatch, number, text):
    write_whole(tmp_path / "a", b"old", tag="t")

    def refuse(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreError, match=text) as caught:
        write_whole(tmp_path / "a", b"new", tag="t")
    assert caught.value.errno == number
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"old"}


def test_parts_that_fail_leave_nothing(tmp_path):
    def parts():
        yield b"begin"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "a", parts(), tag="t")
    assert list(tmp_path.iterdir()) == []


def test_long_names_fit(tmp_path):
    name = "n" * 251 + ".png"
    write_whole(tmp_path / name, b"x", tag="12-of-16")
    assert [p.name for p in tmp_path.iterdir()] == [name]
    with pytest.raises(StoreError, match="file name is too long"):
        write_whole(tmp_path / ("n" + name), b"x", tag="1")


def test_temporary_files_are_removed_by_owner(tmp_path):
    for name in (".tmp-1-of-2-ab", ".tmp-1-of-20-ab", ".tmp-all-cd", "kept.png", ".hidden"):
        (tmp_path / name).write_bytes(b"")
    remove_temporary(tmp_path, "1-of-2")
    assert {p.name for p in tmp_path.iterdir()} == {".tmp-1-of-20-ab", ".tmp-all-cd", "kept.png", ".hidden"}
    remove_temporary(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"kept.png", ".hidden"}
    remove_temporary(tmp_path / "absent")


def test_json_text_is_canonical_and_strict():
    assert json_text({"b": np.float32(0.5), "a": np.int64(2), "c": "ü"}, where="x") == '{"a":2,"b":0.5,"c":"ü"}'
    for value in (float("nan"), np.float32("inf"), {1, 2}, np.zeros(2)):
        with pytest.raises(StoreError, match="row 7: not JSON"):
            json_text({"v": value}, where="row 7")
