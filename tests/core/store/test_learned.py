"""Files that were learned: damage is told from absence; errors of the system from those of libraries."""

import errno
import hashlib

import pytest

from genaug.errors import AdapterError, StoreError
from genaug.store.files import system_errors
from genaug.store.learned import check_sha256, read_table, sha256_of


def test_a_hash_tells_damage(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    expected = hashlib.sha256(b"abc").hexdigest()
    assert sha256_of(file) == expected
    check_sha256(file, expected, hint="Do this")
    file.write_bytes(b"abd")
    with pytest.raises(AdapterError, match=r"weights: damaged: its content is not what was written\. Do this\."):
        check_sha256(file, expected, hint="Do this")
    with pytest.raises(StoreError, match="cannot read"):
        sha256_of(tmp_path / "nothing")


@pytest.mark.parametrize("data", [b"", b'{"a": ', b"[]", b"3", b"\xff\xfe", b"\0" * 40])
def test_a_table_is_read_or_damaged(tmp_path, data):
    file = tmp_path / "table.json"
    with pytest.raises(FileNotFoundError):
        read_table(file, hint="Do this")
    file.write_bytes(data)
    with pytest.raises(AdapterError, match=r"table\.json: damaged: cannot be read .*Do this\.$"):
        read_table(file, hint="Do this")
    file.write_text('{"a": 1}')
    assert read_table(file, hint="Do this") == {"a": 1}


def test_what_the_system_refuses_is_told_in_words(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device", "/x")
    words = r"^/x: cannot do it: the disk is full\. Free some space"
    with pytest.raises(StoreError, match=words) as caught, system_errors("do it", tmp_path):
        raise full
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(StoreError, match="cannot do it: No such device"), system_errors("do it", tmp_path):
        raise OSError(errno.ENODEV, "No such device")
    with pytest.raises(StoreError, match="missing"), system_errors("do it", tmp_path):
        (tmp_path / "missing").read_bytes()


@pytest.mark.parametrize("error", [OSError("the Hub says no"), StoreError("ours"), AdapterError("ours"), KeyError("k")])
def test_other_errors_pass(tmp_path, error):
    with pytest.raises(type(error)) as caught, system_errors("do it", tmp_path):
        raise error
    assert caught.value is error
