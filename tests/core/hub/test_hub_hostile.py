"""Repositories of people who mean harm, or of broken tools: refused in one line, with nothing left behind."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hub_folders import LABELS, tree, weights, write_adapter
from loopback import Entry

from genaug.errors import AdapterError, GenaugError
from genaug.hub.errors import HubError
from genaug.hub.pretrained import from_pretrained
from genaug.hub.pull import fetch, pull
from genaug.hub.reference import HubRef
from genaug.hub.weights import MAX_HEADER, check_weights


def repository(tmp_path, **changes) -> dict[str, bytes]:
    return tree(write_adapter(tmp_path / f"made{len(list(tmp_path.iterdir()))}", files=False, **changes))


def refused(hub, tmp_path, files, message: str, kind: type[GenaugError] = GenaugError) -> None:
    """Refused by `pull` and where a path is taken, in one short line; nothing lies at the target or beside it."""
    hub.put("evil/x", files)
    before = sorted(p.name for p in tmp_path.iterdir() if p.name != "hf")
    fetch.cache_clear()
    for call in (lambda: pull("evil/x", tmp_path / "here"), lambda: fetch(HubRef("evil/x"))):
        with pytest.raises(kind, match=message) as error:
            call()
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 600
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "hf") == before


@pytest.mark.parametrize(
    "name",
    [
        "../evil.json", "a/../../evil.json", "/etc/evil.json", "..\\evil.json", "C:/evil.json", "a//b.json",
        "a/./b.json", "./evil.json",
        "a\x1b[2J.json", "a\nb.json", "a\0b.json", "/".join("a" * 20) + ".json",
        ".. /evil.json", "../run.sh",
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere(hub, tmp_path, name) -> None:
    files = {**repository(tmp_path), name: b"{}"}
    refused(hub, tmp_path, files, "a file called .*names inside the folder. Do not trust it", HubError)
    assert not hub.requests("resolve|_lfs")  # nothing was fetched at all


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["x" * 250 + ".json"], "a name of 255 bytes, 255 with its folders: .*Allowed: at most 240"),
        (["ä" * 200 + ".json"], "a name of 405 bytes"),
        (["/".join(["f" * 100] * 12) + ".json"], "a name of 105 bytes, 1216 with its folders"),
        (["a.json", "a.json/b.json"], "'a.json' and 'a.json/b.json', for which it would be file and folder at once"),
        (["a.json", "A.json/b.json"], "file and folder at once"),
        (["a.json", "a.json.metadata/b.json"], "file and folder at once"),
        (["a.json", "A.json"], "'A.json' and 'a.json', which are one where case does not count"),
        (["\u00e9.json", "e\u0301.json"], "one where case does not count"),
    ],
)
def test_names_that_cannot_be_written(hub, tmp_path, names, message) -> None:
    refused(hub, tmp_path, {**repository(tmp_path), **dict.fromkeys(names, b"{}")}, message, HubError)
    assert not hub.requests("resolve|_lfs")


def test_names_at_the_limit(hub, tmp_path) -> None:
    hub.put("me/x", {**repository(tmp_path), "x" * 235 + ".json": b"{}", "f" * 235 + ".txt/a.json": b"{}"})
    pull("me/x", tmp_path / "here")
    assert (tmp_path / "here" / ("x" * 235 + ".json")).is_file()


def test_too_much(hub, tmp_path, monkeypatch) -> None:
    good = repository(tmp_path)
    refused(hub, tmp_path, {**good, "big.json": Entry(b"{}", False, 2**25)}, r"big.json has 33,554,432 bytes", HubError)
    many = {f"w{i}.safetensors": Entry(b"x", True, 2**34) for i in range(3)}
    refused(hub, tmp_path, {**good, **many}, r"48.0 GiB in 7 files.*at most 32.0 GiB.*--max-size", HubError)
    monkeypatch.setattr("genaug.hub.listing.MAX_FILES", 3)
    refused(hub, tmp_path, good, "4 files. Allowed: at most 3", HubError)
    assert not hub.requests("resolve|_lfs")
    hub.put("me/x", good)
    monkeypatch.undo()


def test_a_file_that_is_larger_than_the_listing_says(hub, tmp_path) -> None:
    good = repository(tmp_path)
    lie = Entry(good["README.md"] * 100, False, size=10)
    hub.put("evil/x", {**good, "README.md": lie})
    for call in (lambda: pull("evil/x", tmp_path / "here"), lambda: fetch(HubRef("evil/x"))):
        with pytest.raises(HubError, match=r"README.md arrived damaged"):
            call()
    assert not (tmp_path / "here").exists()


def test_pickles_and_code_are_never_fetched(hub, tmp_path) -> None:
    class Bomb:
        def __reduce__(self):
            return (exec, ("raise SystemExit",))

    bomb = pickle.dumps(Bomb())
    files = dict.fromkeys(
        ["adapter_model.bin", "x.pt", "x.pkl", "x.ckpt", "x.npy", "setup.py", "x.pt2", ".x.json"], bomb
    )
    hub.put("evil/x", {**repository(tmp_path), **files})
    report = pull("evil/x", tmp_path / "here")
    assert set(report["skipped"]) == set(files)
    assert not set(tree(tmp_path / "here")) & set(files)
    assert not any(name.rpartition("/")[2] in files for name, _, _ in hub.requests("resolve"))


def test_weights_as_a_pickle_only(hub, tmp_path) -> None:
    files = repository(tmp_path)
    files["adapter_model.bin"] = files.pop("adapter_model.safetensors")
    refused(hub, tmp_path, files, "missing or damaged: weights", AdapterError)


def safetensors(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
BAD = {
    "huge header": (safetensors({}, length=2**62), "a header of 4,611,686,018,427,387,904 bytes"),
    "large header": (safetensors(b" " * (MAX_HEADER + 1)), "a header of 16,777,217 bytes"),
    "short": (b"1234", "a header of"),
    "empty": (b"", "a header of"),
    "no json": (safetensors(b"{"), "its header cannot be read"),
    "deep": (safetensors(b"[" * 100_000), "its header cannot be read"),
    "list": (safetensors([1]), "its header is no table"),
    "metadata": (safetensors({"__metadata__": {"a": 1}}), "its metadata is no table of texts"),
    "no tensor": (safetensors({"a": 3}), "describes 'a' wrongly"),
    "pickled dtype": (safetensors({"a": {**ONE, "dtype": "object"}}, bytes(8)), "describes 'a' wrongly"),
    "wrong shape": (
        safetensors({"a": {**ONE, "shape": [3]}}, bytes(8)),
        r"shape \[3\] of F32 does not fit its bytes",
    ),
    "negative": (safetensors({"a": {**ONE, "shape": [-2]}}, bytes(8)), "describes 'a' wrongly"),
    "true": (safetensors({"a": {**ONE, "shape": [True]}}, bytes(8)), "describes 'a' wrongly"),
    "text as a size": (safetensors({"a": {**ONE, "shape": ["a", 10**14]}}, bytes(8)), "describes 'a' wrongly"),
    "list as a size": (safetensors({"a": {**ONE, "shape": [[1], 10**14]}}, bytes(8)), "describes 'a' wrongly"),
    "text as a shape": (safetensors({"a": {**ONE, "shape": "2"}}, bytes(8)), "describes 'a' wrongly"),
    "long sizes": (safetensors({"a": {**ONE, "shape": [10**4000] * 200}}, bytes(8)), "describes 'a' wrongly"),
    "many sizes": (safetensors({"a": {**ONE, "shape": [2**62] * 100_000}}, bytes(8)), "describes 'a' wrongly"),
    "texts as offsets": (safetensors({"a": {**ONE, "data_offsets": ["0", "8"]}}, bytes(8)), "describes 'a' wrongly"),
    "no offset": (safetensors({"a": {**ONE, "data_offsets": [0, None]}}, bytes(8)), "describes 'a' wrongly"),
    "list as an offset": (safetensors({"a": {**ONE, "data_offsets": [0, [8]]}}, bytes(8)), "describes 'a' wrongly"),
    "huge shape": (safetensors({"a": {**ONE, "shape": [2**62, 2**62]}}, bytes(8)), "does not fit"),
    "beyond the end": (safetensors({"a": {**ONE, "shape": [4], "data_offsets": [0, 16]}}, bytes(8)), "does not fit"),
    "overlap": (safetensors({"a": ONE, "b": ONE}, bytes(8)), "does not fit"),
    "gap": (safetensors({"a": {**ONE, "data_offsets": [8, 16]}}, bytes(16)), "does not fit"),
    "tail": (safetensors({"a": ONE}, bytes(9)), "by its header"),
    "nan": (weights(x=np.array([0.0, np.nan])), "'x' holds NaN or infinity"),
    "infinity": (weights(x=np.array([0.0, -np.inf])), "'x' holds NaN or infinity"),
}


@pytest.mark.parametrize("name", BAD)
def test_weights_that_are_not_what_they_say(tmp_path, name) -> None:
    data, message = BAD[name]
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    with pytest.raises(AdapterError, match=message) as error:
        check_weights(path, where="w")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("name", ["huge header", "wrong shape", "texts as offsets", "nan"])
def test_such_weights_in_a_repository(hub, tmp_path, name) -> None:
    data, message = BAD[name]
    refused(hub, tmp_path, repository(tmp_path, data=data), message, AdapterError)


def test_weights_that_no_table_records(hub, tmp_path) -> None:
    nan = weights(x=np.array([np.nan]))
    good = repository(tmp_path)
    decoy = {**good, "decoy.safetensors": good["adapter_model.safetensors"], "adapter_model.safetensors": nan}
    for files, message in (
        ({**good, "extra.safetensors": nan}, "extra.safetensors: 'x' holds NaN or infinity"),
        ({**good, "deep/extra.safetensors": b"\xff" * 99}, "deep/extra.safetensors: a header of"),
        (decoy, "adapter_model.safetensors: 'x' holds NaN or infinity"),
    ):
        refused(hub, tmp_path, files, message, AdapterError)


def test_a_check_that_fails_itself_is_a_refusal(hub, tmp_path, monkeypatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("genaug.hub.arrival.check_adapter", broken)
    refused(hub, tmp_path, repository(tmp_path), r"its content cannot be checked \(MemoryError\)", HubError)


@pytest.mark.parametrize(
    ("kind", "bits"), [("F16", 0x7C00), ("BF16", 0x7F80), ("F32", 0x7F800001), ("F64", 0x7FF << 52)]
)
def test_nan_of_every_type(tmp_path, kind, bits) -> None:
    size = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}[kind]
    path = tmp_path / "w.safetensors"
    for value, bad in ((0, False), (bits, True), (bits | 1 << size * 8 - 1, True), (bits - 1, False)):
        if kind == "F32" and value == bits - 1:
            continue  # infinity
        header = {"a": {"dtype": kind, "shape": [3], "data_offsets": [0, 3 * size]}}
        path.write_bytes(safetensors(header, bytes(2 * size) + value.to_bytes(size, "little")))
        if bad:
            with pytest.raises(AdapterError, match="NaN or infinity"):
                check_weights(path, where="w")
        else:
            assert check_weights(path, where="w") == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 3}, "has 3 as 'format'"),
        ({"method": None}, "has None as 'method'"),
        ({"base": ["x"]}, r"has \['x'\] as 'base'"),
        ({"labels": "/etc/passwd"}, "as 'labels'. Allowed: a class table"),
        ({"labels": {"names": "/etc/passwd"}}, "has no class names"),
        ({"labels": {**LABELS, "ignore_index": 4}}, "its class table is wrong"),
        ({"labels": {"names": {"1": "x" * 99}, "ignore_index": 10**9}}, "its class table is wrong"),
        ({"weights_sha256": "0" * 64}, "missing or damaged: weights"),
        ({"evil_sha256": "0" * 64}, "missing or damaged: evil"),
    ],
)
def test_configurations_of_another_form(hub, tmp_path, change, message) -> None:
    refused(hub, tmp_path, repository(tmp_path, **change), message, AdapterError)


def test_formats_of_tomorrow(hub, tmp_path) -> None:
    message = r"of method 'matchmask', format 'lt-adapter/99'\. Allowed: lt-adapter/1\. A newer format needs a newer"
    files = repository(tmp_path, format="lt-adapter/99", base="../../x")
    refused(hub, tmp_path, files, message, AdapterError)
    with pytest.raises(AdapterError, match=message):  # before anything is said of its base
        from_pretrained("evil/x")
    hub.put("me/x", repository(tmp_path, method="of-a-plugin-that-is-not-here", format="other/3"))
    pull("me/x", tmp_path / "here")


@pytest.mark.parametrize("base", ["../../x", "/srv/x", "~/x", "a/../../x", "C:\\x", "x/y/z", "", "a\nb"])
def test_bases_that_are_paths(hub, tmp_path, base) -> None:
    hub.put("evil/x", repository(tmp_path, base=base))
    with pytest.raises(AdapterError, match=r"its base model is .*, a path\. Use it by its name") as error:
        pull("evil/x", tmp_path / "here")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("here*"))


@pytest.mark.parametrize("base", ["genaug-tiny", "org/name", "hf-hub:org/name@v1"])
def test_bases_that_are_names(hub, tmp_path, base) -> None:
    hub.put("me/x", repository(tmp_path, base=base))
    pull("me/x", tmp_path / "here")


def test_a_configuration_that_is_none(hub, tmp_path) -> None:
    for text in (b"{", b"[" * 100_000):
        files = {**repository(tmp_path), "genaug_config.json": text}
        refused(hub, tmp_path, files, "cannot be read|nested too deeply")
