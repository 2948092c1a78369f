"""Paths of this machine: none survives, and nothing that is no path is touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genaug.hub.places import REMOVED, clean, is_machine_path, machine_paths, without_paths

NAME = st.text("abcdefgXYZ0189_-", min_size=3, max_size=8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data", f"{REMOVED}/data"),
        ("/home/me/my photos (old)/train", f"{REMOVED}/train"),
        ("~/x/y.txt", f"{REMOVED}/y.txt"),
        ("~", "~"),
        ("C:\\Users\\me\\x", f"{REMOVED}/x"),
        ("D:/x/y", f"{REMOVED}/y"),
        ("\\\\server\\share\\x", f"{REMOVED}/x"),
        ("file:///srv/x", f"{REMOVED}/x"),
        ("read /srv/a/b.png, then /mnt/c/d", f"read {REMOVED}/b.png, then {REMOVED}/d"),
        ("in '/srv/a b/c' and `/x/y z`", f"in '{REMOVED}/c' and `{REMOVED}/y z`"),
        ("at ~me/runs/1.", f"at {REMOVED}/1."),
    ],
)
def test_paths(text, expected) -> None:
    assert without_paths(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "train/images", "../masks", "runs/baseline", "org/name@v1", "hf-hub:org/name", "https://a.b/c/d?e=/f",
        "1/16 and/or", "`/a` and `b/c`",
        "road", "", "a / b", "http://x/y/z", "<removed>/x", "s3://bucket/key/x", "\\d+/x", "50 km/h", "//", "/",
    ],
)  # fmt: skip
def test_what_is_no_path_of_this_machine(text) -> None:
    assert without_paths(text) == text
    assert machine_paths(text) == []


@given(st.lists(NAME, min_size=2, max_size=5), st.sampled_from(["{}", "at {}", "'{}'", "a={}", "({})", "x\n{}\ny"]))
def test_only_the_last_part_of_a_path_survives(parts, around) -> None:
    path = "/" + "/".join(["secret" + part for part in parts[:-1]] + [parts[-1]])
    found = without_paths(around.format(path))
    assert "secret" not in found
    assert parts[-1] in found
    assert without_paths(found) == found


@given(
    st.recursive(
        st.none() | st.integers() | NAME, lambda x: st.lists(x, max_size=3) | st.dictionaries(NAME, x, max_size=3)
    )
)
def test_tables_without_paths_stay_as_they_are(value) -> None:
    assert clean(value) == value
    assert machine_paths(value) == []
    assert machine_paths([value, {"/srv/x/y": 1}]) == ["/srv/x/y"]


def test_the_home_folder_in_a_sentence(monkeypatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/users/somebody"))
    assert "somebody" not in without_paths("see /users/somebody, or /users/somebody/x/y")
    assert not is_machine_path(json.dumps({"a": 1}))
