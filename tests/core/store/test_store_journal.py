import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genaug.errors import StoreError
from genaug.store.journal import Index, Journal, write_rows


def rows(*keys, value=0):
    return [{"key": key, "value": value} for key in keys]


def keys_in(journal):
    return [row["key"] for _, row in journal.scan()]


def test_append_scan_read(tmp_path):
    journal = Journal(tmp_path / "j.jsonl")
    assert keys_in(journal) == []
    offsets = journal.append(rows("a", "bü")) + journal.append(rows("c"))
    assert keys_in(journal) == ["a", "bü", "c"]
    assert [offset for offset, _ in journal.scan()] == offsets
    assert journal.read(offsets[2], "c") == {"key": "c", "value": 0}
    with pytest.raises(StoreError, match="open it again"):
        journal.read(offsets[1], "c")
    with pytest.raises(StoreError, match="open it again"):
        journal.read(offsets[1] + 2, "bü")


@settings(deadline=None, max_examples=60)
@given(cut=st.integers(0, 200))
def test_a_journal_cut_anywhere_goes_on(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("j") / "j.jsonl"
    Journal(path).append(rows("first", "second", "thïrd"))
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    survivors = [json.loads(line)["key"] for line in whole[:cut].splitlines(keepends=True) if line.endswith(b"\n")]
    journal = Journal(path)
    assert keys_in(journal) == survivors
    journal.cut_tail()
    journal.append(rows("next"))
    assert keys_in(journal) == [*survivors, "next"]


def test_a_long_torn_tail_is_cut(tmp_path):
    path = tmp_path / "j.jsonl"
    Journal(path).append(rows("a"))
    good = path.read_bytes()
    path.write_bytes(good + b"x" * 200_000)
    Journal(path).cut_tail()
    assert path.read_bytes() == good
    path.write_bytes(b"y" * 70_000)
    Journal(path).cut_tail()
    assert path.read_bytes() == b""


@pytest.mark.parametrize("bad", [b"{nonsense}\n", b"[1]\n", b'{"k": 1}\n', b"\x00\x00\x00\n", b"\xff\xfe\n"])
def test_a_damaged_line_is_named_or_left_out(tmp_path, bad):
    path = tmp_path / "j.jsonl"
    journal = Journal(path)
    journal.append(rows("a"))
    path.write_bytes(path.read_bytes() + bad)
    journal.append(rows("b"))
    with pytest.raises(StoreError, match=r"j\.jsonl, line 2: damaged.*--repair"):
        keys_in(journal)
    assert [row["key"] for _, row in journal.scan(skip_bad=True)] == ["a", "b"]


def test_a_refused_append_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "j.jsonl")
    journal.append(rows("a"))
    before = journal.path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="disk is full"):
            journal.append(rows("b"))
    assert journal.path.read_bytes() == before
    with pytest.raises(StoreError, match="row of c: not JSON"):
        journal.append([{"key": "c", "value": float("nan")}])
    assert journal.path.read_bytes() == before


def test_an_index_takes_the_later_row(tmp_path):
    one, two = Journal(tmp_path / "1"), Journal(tmp_path / "2")
    one.append([*rows("a", "b"), {"key": "r", "image": None}])
    two.append([*rows("b", value=5), {"key": "r", "image": {}}, {"key": "s", "image": None}])
    index = Index([one, two])
    assert list(index) == ["a", "b", "r", "s"]
    assert index["b"]["value"] == 5
    assert index.refused == {"s"}
    index.append(rows("a", value=7))
    assert index["a"]["value"] == 7
    assert keys_in(two)[-1] == "a"
    index.forget("a")
    assert "a" not in index
    assert len(index) == 3


def test_write_rows_keeps_the_old_file_until_the_end(tmp_path):
    path = tmp_path / "rows"
    write_rows(path, rows("a"), tag="t")
    before = path.read_bytes()

    def failing():
        yield from rows("b")
        raise StoreError("no row")

    with pytest.raises(StoreError, match="no row"):
        write_rows(path, failing(), tag="t")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["rows"]
