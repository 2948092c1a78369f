import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import genaug
from genaug.cli import RESUMABLE, VERBS, group
from genaug.errors import ConfigError, DataError


def genaug_command(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-m", "genaug", *arguments], capture_output=True, text=True, cwd=cwd, env=env
    )


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Put a command of the test's own in place of ``genaug doctor``'s."""

    def put(function: Callable[[], None]) -> None:
        monkeypatch.setattr("genaug.cli.doctor.command", click.command()(function))

    return put


def test_help_names_every_verb_and_its_text() -> None:
    result = CliRunner().invoke(group, ["--help"])
    assert result.exit_code == 0
    words = " ".join(result.output.split())
    for name, (_, text) in VERBS.items():
        assert f"{name} {text}" in words


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_exists_and_explains_itself(name: str) -> None:
    result = CliRunner().invoke(group, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"Usage: genaug {name}") or result.output.startswith(f"Usage: group {name}")
    assert group.get_command(click.Context(group), name).get_short_help_str()  # type: ignore[union-attr]


def test_version_and_unknown_verbs() -> None:
    assert CliRunner().invoke(group, ["--version"]).output == f"genaug, version {genaug.__version__}\n"
    result = CliRunner().invoke(group, ["generat"])
    assert result.exit_code == 2
    assert "No such command 'generat'. Did you mean 'generate'?" in result.output


def test_errors_of_genaug_are_one_line_and_exit_code_2(verb: Callable[..., None]) -> None:
    def fail() -> None:
        raise ConfigError("got 3", where="seed", allowed="2")

    verb(fail)
    result = CliRunner().invoke(group, ["doctor"])
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", "genaug: seed: got 3. Allowed: 2.\n")
    for arguments, environment in ((["--debug", "doctor"], {}), (["doctor"], {"GENAUG_DEBUG": "1"})):
        shown = CliRunner().invoke(group, arguments, env=environment)
        assert shown.exit_code == 2
        assert "Traceback" in shown.stderr


def test_problems_in_data_keep_their_lines_and_exit_with_code_1(verb: Callable[..., None]) -> None:
    def fail() -> None:
        raise DataError("2 problems", problems=["one", "two"])

    verb(fail)
    result = CliRunner().invoke(group, ["doctor"])
    assert (result.exit_code, result.stderr) == (1, "genaug: 2 problems.\n  - one\n  - two\n")


def test_bugs_are_not_dressed_up(verb: Callable[..., None]) -> None:
    def fail() -> None:
        raise ZeroDivisionError("a bug")

    verb(fail)
    assert isinstance(CliRunner().invoke(group, ["doctor"]).exception, ZeroDivisionError)


@pytest.mark.parametrize("name", VERBS)
def test_interrupts_say_how_to_go_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()

    monkeypatch.setattr(VERBS[name][0].replace(":", "."), click.command()(stop))
    result = CliRunner().invoke(group, [name])
    then = "goes on where this one stopped" if name in RESUMABLE else "starts over"
    assert (result.exit_code, result.stderr) == (130, f"\ngenaug: interrupted. The same command {then}.\n")


STOPPED = """
import multiprocessing, os, signal, sys, time, click, genaug.cli.generate as verb
from genaug.__main__ import main
def stop():
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    worker.start(), worker.terminate(), worker.join()
    print(worker.exitcode, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
verb.command = click.command()(stop)
sys.argv[1:] = ["generate"]
main()
"""


def test_batch_systems_may_end_it_and_its_workers() -> None:
    done = subprocess.run([sys.executable, "-c", STOPPED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (143, "-15\n")
    assert done.stderr == "\ngenaug: terminated. The same command goes on where this one stopped.\n"


def test_interrupts_while_it_starts_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = genaug_command("doctor", PYTHONPATH=path)
    assert (done.returncode, done.stderr) == (130, "\ngenaug: interrupted. The same command starts over.\n")


def test_a_process_ends_with_the_exit_code_and_no_traceback(tmp_path: Path) -> None:
    result = genaug_command("check", "nowhere.yaml", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1].startswith("genaug: nowhere.yaml: cannot be read")
    assert "Traceback" not in result.stderr
    assert "Traceback" in genaug_command("check", "nowhere.yaml", cwd=tmp_path, GENAUG_DEBUG="1").stderr


def test_warnings_of_plugins_are_one_line(install: Callable[..., None], tmp_path: Path) -> None:
    install("torn-dist", {"torn_plugin": "1 / 0"}, {"torn": "torn_plugin"})
    path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    result = genaug_command("check", "no-such-recipe", PYTHONPATH=path)
    assert result.returncode == 2
    lines = [line for line in result.stderr.splitlines() if "torn" in line]
    assert lines[0].startswith(
        "genaug: warning: genaug plugin 'torn' (torn-dist 1.0) could not be loaded: ZeroDivisionE"
    )
    assert "registry.py" not in result.stderr
