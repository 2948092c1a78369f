import subprocess
import sys

import pytest

from genaug.errors import ConfigError, StoreError
from genaug.store import lock
from genaug.store.shard import Shard

HOLD = """
import sys
from pathlib import Path
from genaug.store import lock
with lock.hold(Path(sys.argv[1]), (int(sys.argv[2]), int(sys.argv[3]))):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Start processes that hold a range until told to stop."""
    started = []

    def start(wanted):
        arguments = [sys.executable, "-c", HOLD, str(tmp_path), *map(str, wanted)]
        process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_two_processes(tmp_path, holder):
    first, second = lock.shard_range(Shard(1, 2)), lock.shard_range(Shard(2, 2))
    process = holder(first)
    with lock.hold(tmp_path, second), lock.hold(tmp_path, lock.MERGE):
        pass
    for wanted in (first, lock.EVERYTHING):
        with pytest.raises(StoreError, match="another process is writing"), lock.hold(tmp_path, wanted):
            raise AssertionError
    process.kill()  # a dead process holds nothing
    process.wait()
    with lock.hold(tmp_path, lock.EVERYTHING):
        pass


def test_one_process_excludes_itself(tmp_path):
    with lock.hold(tmp_path, lock.MERGE):
        with pytest.raises(StoreError, match="this process is already"), lock.hold(tmp_path, lock.EVERYTHING):
            raise AssertionError
        with lock.hold(tmp_path, lock.ADAPT):
            pass
        # Giving ADAPT back must not have given MERGE back: the kernel forgets all locks of a closed descriptor.
        arguments = [sys.executable, "-c", HOLD, tmp_path, *map(str, lock.MERGE)]
        result = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert "another process is writing" in result.stderr
    with lock.hold(tmp_path, lock.EVERYTHING):
        pass


def test_waiting(tmp_path, holder):
    process = holder(lock.MERGE)
    code = (
        "import sys;from pathlib import Path;from genaug.store import lock\n"
        "with lock.hold(Path(sys.argv[1]), lock.MERGE, wait=True): print('mine')"
    )
    waiting = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.5)
    process.communicate("")
    assert waiting.communicate(timeout=20)[0] == "mine\n"


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"), lock.hold(tmp_path / "file", lock.MERGE):
        raise AssertionError


def test_every_shard_has_its_own_range():
    ranges = [lock.shard_range(Shard(i, n)) for n in range(1, 30) for i in range(1, n + 1)]
    assert len(set(ranges)) == len(ranges)
    assert not {lock.ADAPT, lock.MERGE, lock.FILTER} & set(ranges)


# ---------------------------------------------------------------------- shards


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_share_the_work_without_overlap(count):
    owners = [[s.index for s in (Shard(i, count) for i in range(1, count + 1)) if s.has(n)] for n in range(20)]
    assert all(len(o) == 1 for o in owners)
    assert {o[0] for o in owners} == set(range(1, count + 1))


def test_parse():
    assert Shard.parse("2/4") == Shard(2, 4)
    assert str(Shard(2, 4)) == "2/4"
    assert Shard.parse("1/1") is None
    for text in ("0/4", "5/4", "a/4", "1", "1/0", "-1/4"):
        with pytest.raises(ConfigError, match="--shard"):
            Shard.parse(text)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None),
        ({"RANK": "2", "WORLD_SIZE": "4"}, Shard(3, 4)),
        ({"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "3"}, Shard(1, 3)),
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "1"}, Shard(3, 3)),
        (
            {
                "SLURM_ARRAY_TASK_ID": "9",
                "SLURM_ARRAY_TASK_COUNT": "3",
                "SLURM_ARRAY_TASK_MIN": "5",
                "SLURM_ARRAY_TASK_STEP": "2",
            },
            Shard(3, 3),
        ),
        ({"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2", "RANK": "1", "WORLD_SIZE": "3"}, Shard(5, 6)),
        ({"SLURM_JOB_ID": "17", "RANK": "1"}, None),
    ],
)
def test_from_environment(environment, expected):
    assert Shard.from_environment(environment) == expected


def test_a_bad_environment():
    with pytest.raises(ConfigError, match="WORLD_SIZE"):
        Shard.from_environment({"RANK": "0", "WORLD_SIZE": "many"})
    with pytest.raises(ConfigError, match="shard 6/4"):
        Shard.from_environment({"RANK": "5", "WORLD_SIZE": "4"})
