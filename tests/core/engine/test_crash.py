"""A process that dies at any step of any write, is started again, and must end with the bytes of an undisturbed run."""

import contextlib
import os
import random
import shutil
import signal
import stat
import subprocess
import time
import warnings

import pytest
import yaml
from noise_helpers import (
    FILTERS,
    OFFLINE,
    assert_same_tree,
    command,
    environment,
    genaug,
    make_recipe,
    start,
    table,
    write_recipe,
)

from genaug.engine import run
from genaug.store import Shard

SMALL = {
    "data": {"count": 2, "odd_every": 0},
    "generator": {"images_per_mask": 2, "batch_size": 3, "refuse": ["m_1_1"], "needs_adapter": True},
    "filters": FILTERS,
}


def fork(work):
    """Run `work` in a forked child and return the child's number; its result is the exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks beside threads; ours run Python only
        child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            code = work()
        os._exit(code)
    return child


def result_of(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def dying(root, step, *, torn, shard=None):
    """Run `SMALL` in a child that dies; return its exit code: 9, or 0 if the run has fewer steps.

    It dies before its `step`-th fsync, rename or removal; with `torn`, in the middle of its `step`-th write of a file,
    of which half is on disk.
    """

    def work():
        count = 0

        def wrap(function):
            def wrapped(*arguments, **options):
                nonlocal count
                if torn and not stat.S_ISREG(os.fstat(arguments[0]).st_mode):
                    return function(*arguments, **options)
                count += 1
                if count == step:
                    if torn:
                        os.ftruncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
                    os._exit(9)
                return function(*arguments, **options)

            return wrapped

        for name in ["fsync"] if torn else ["fsync", "replace", "unlink"]:
            setattr(os, name, wrap(getattr(os, name)))
        run(make_recipe(root, **SMALL), device="cpu", stages=OFFLINE, shard=shard)
        return 0

    return result_of(fork(work))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    run(make_recipe(root, **SMALL), device="cpu", stages=OFFLINE)
    return root / "out"


@pytest.mark.parametrize("torn", [False, True], ids=["between", "inside"])
def test_dying_at_every_step(tmp_path, whole, torn):
    step, died = 0, 9
    while died == 9:
        step += 1
        root = tmp_path / str(step)
        died = dying(root, step, torn=torn)
        run(make_recipe(root, **SMALL), device="cpu", stages=OFFLINE)
        assert_same_tree(root / "out", whole)
        shutil.rmtree(root)
    assert died == 0
    assert step > 25  # the wrapped calls were really the ones in use


def test_dying_again_and_again(tmp_path, whole):
    """One store, a death at a growing step each time, until a run gets through."""
    step = 1
    while dying(tmp_path, step, torn=step % 2 == 0) == 9:
        step += 3
    assert step > 10
    assert_same_tree(tmp_path / "out", whole)


def test_dying_shards(tmp_path, whole):
    for step in range(1, 80, 6):
        root = tmp_path / str(step)
        for index in (1, 2):
            dying(root, step, torn=index == 1, shard=Shard(index, 2))
        for index in (2, 1):
            run(make_recipe(root, **SMALL), device="cpu", stages=OFFLINE, shard=Shard(index, 2))
        assert_same_tree(root / "out", whole)


# ---------------------------------------------------------------------- real processes

BIG = {
    "data": {"count": 4, "height": 160, "width": 120, "odd_every": 3},
    "generator": {"needs_adapter": True, "delay": 0.02},
    "filters": [{**f, "delay": 0.01} for f in FILTERS],
}


def test_twenty_kills_at_random_moments(tmp_path):
    """The whole of `run`, report included; a store that gets finished is compared and begun again."""

    def work(root):
        run(make_recipe(root, **BIG), device="cpu")
        return 0

    assert result_of(fork(lambda: work(tmp_path / "warm"))) == 0
    begin = time.monotonic()
    assert result_of(fork(lambda: work(tmp_path / "whole"))) == 0
    duration = time.monotonic() - begin
    moments = random.Random(20)
    root = tmp_path / "killed"
    kills = 0
    while kills < 20:
        child = fork(lambda: work(root))
        time.sleep(duration * moments.uniform(0, 0.9))
        os.kill(child, signal.SIGKILL)
        code = result_of(child)
        assert code in (0, -signal.SIGKILL)
        kills += code != 0
        if code == 0:
            assert_same_tree(root / "out", tmp_path / "whole/out")
            shutil.rmtree(root / "out")
    work(root)
    assert_same_tree(root / "out", tmp_path / "whole/out")


def test_killed_commands(tmp_path):
    """The same with processes that a shell would start."""
    reference = write_recipe(tmp_path / "whole", **BIG)
    assert genaug("run", reference).returncode == 0
    recipe = write_recipe(tmp_path / "killed", **BIG)
    for wanted in ("conditions/m_2.png", "images/m_1_0.png", "filters/dark/verdicts.jsonl"):
        process = start("run", recipe)
        while not (tmp_path / "killed/out" / wanted).exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.002)
        process.kill()
        process.communicate()
    result = genaug("run", recipe)
    assert result.returncode == 0, result.stderr
    assert_same_tree(tmp_path / "killed/out", tmp_path / "whole/out")


def test_shards_as_processes_at_once(tmp_path):
    """Three processes at once, one of them killed and started again, equal one process."""
    reference = write_recipe(tmp_path / "whole", **BIG)
    assert genaug("run", reference).returncode == 0
    recipe = write_recipe(tmp_path / "shards", **BIG)
    processes = [start("run", recipe, "--shard", f"{i}/3") for i in (1, 2)]
    launched = start("run", recipe, RANK="2", WORLD_SIZE="3")
    while not (tmp_path / "shards/out/manifest-3-of-3.jsonl").exists() and launched.poll() is None:
        time.sleep(0.005)
    launched.kill()
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    launched.communicate()
    assert genaug("run", recipe, RANK="2", WORLD_SIZE="3").returncode == 0
    assert_same_tree(tmp_path / "shards/out", tmp_path / "whole/out")


def test_a_second_process_is_refused(tmp_path):
    changes = {**BIG, "generator": {"delay": 30}}
    recipe = write_recipe(tmp_path, **changes)
    first = start("generate", recipe)
    try:
        while not (tmp_path / "out/dataset.json").exists():
            assert first.poll() is None, first.stderr.read()
            time.sleep(0.01)
        for extra in ([], ["--shard", "1/2"]):
            second = genaug("generate", recipe, *extra)
            assert second.returncode == 2
            assert "another process is writing to the store" in second.stderr
    finally:
        first.kill()
        first.communicate()
    recipe.write_text(yaml.safe_dump(table(**{**changes, "generator": {"delay": 0}})))
    second = genaug("generate", recipe)  # another recipe, but nothing was made by the first
    assert second.returncode == 0, second.stderr


def test_ctrl_c(tmp_path):
    recipe = write_recipe(tmp_path, **{**BIG, "generator": {"delay": 30}})
    process = start("generate", recipe)
    while not (tmp_path / "out/conditions/m_3.png").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "goes on where this one stopped" in errors


def test_a_file_size_limit(tmp_path):
    """What a full disk looks like to a process: its writes fail half-way."""
    recipe = write_recipe(tmp_path / "a", **BIG)
    script = 'ulimit -f 40; exec "$0" "$@"'  # blocks of 1024 bytes; an image takes about 60 kB
    result = subprocess.run(
        ["bash", "-c", script, *command("run", recipe)], env=environment(), capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "larger than this system or account allows" in result.stderr
    assert "run the same command again" in result.stderr
    assert not list((tmp_path / "a/out").rglob(".tmp-*"))
    assert genaug("run", recipe).returncode == 0
    assert genaug("run", write_recipe(tmp_path / "b", **BIG)).returncode == 0
    assert_same_tree(tmp_path / "a/out", tmp_path / "b/out")
