"""What every verb has: an example to be typed, --json, --dry-run where it writes, --quiet, --verbose, completion."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from genaug.cli import RESUMABLE, VERBS, group
from genaug.cli.voice import say
from genaug.errors import ConfigError

#: Verbs that change nothing on disk or elsewhere.
LOOKING = {"check", "schema", "plugins", "doctor"}


def command_of(verb: str) -> click.Command:
    command = group.get_command(click.Context(group), verb)
    assert command is not None
    return command


def options_of(verb: str) -> set[str]:
    return {name for parameter in command_of(verb).params for name in parameter.opts}


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example_that_can_be_typed(verb: str) -> None:
    shown = CliRunner().invoke(group, [verb, "--help"]).output
    (example,) = re.findall(rf"Example:\s+genaug {verb}(.*)", shown)
    command_of(verb).make_context(
        verb, shlex.split(example.partition(" > ")[0])
    )  # raises if an option or argument is wrong


@pytest.mark.parametrize("verb", VERBS)
def test_json_and_dry_runs(verb: str) -> None:
    assert "--json" in options_of(verb)
    assert ("--dry-run" in options_of(verb)) == (verb not in LOOKING)


def test_only_what_is_kept_is_called_resumable() -> None:
    for verb in VERBS:
        words = " ".join((command_of(verb).help or "").split())
        assert (verb in RESUMABLE) == bool(re.search(r"goes on|[Gg]oes on where|not sent again", words)), verb


# ---------------------------------------------------------------------- quiet and verbose


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Put a command of the test's own in place of ``genaug doctor``'s."""

    def put(function: Callable[[], None]) -> None:
        monkeypatch.setattr("genaug.cli.doctor.command", click.command()(function))

    return put


def talk() -> None:
    click.echo("result")
    say("note")
    logging.getLogger("genaug").debug("detail")
    logging.getLogger("genaug").warning("warned")
    print(os.environ.get("TQDM_DISABLE"))


@pytest.mark.parametrize("place", ["before", "after"])
def test_quiet_leaves_the_result(verb: Callable[..., None], place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "0")
    verb(talk)
    result = CliRunner().invoke(group, ["-q", "doctor"] if place == "before" else ["doctor", "--quiet"])
    assert (result.exit_code, result.stdout, result.stderr) == (0, "result\n1\n", "")
    assert os.environ["TQDM_DISABLE"] == "0"  # as it was
    plain = CliRunner().invoke(group, ["doctor"])
    assert "note\n" in plain.stderr
    assert "detail" not in plain.stderr


@pytest.mark.parametrize("place", ["before", "after"])
def test_verbose_says_more(verb: Callable[..., None], place: str) -> None:
    verb(talk)
    handlers = logging.getLogger("genaug").handlers[:]
    result = CliRunner().invoke(group, ["--verbose", "doctor"] if place == "before" else ["doctor", "-v"])
    assert re.search(r"^note\n\d\d:\d\d:\d\d DEBUG detail\n\S+ WARNING warned\n$", result.stderr)
    assert logging.getLogger("genaug").handlers == handlers


@pytest.mark.parametrize("arguments", [["-v", "doctor"], ["doctor", "-v"], ["--debug", "doctor"]])
def test_verbose_shows_tracebacks_and_keeps_exit_codes(verb: Callable[..., None], arguments: list[str]) -> None:
    def fail() -> None:
        raise ConfigError("got 3", where="seed", allowed="2")

    verb(fail)
    result = CliRunner().invoke(group, arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("Traceback")
    assert result.stderr.endswith("genaug: seed: got 3. Allowed: 2.\n")


LOUD = """
import click, genaug.cli.doctor as verb
from genaug.__main__ import main
verb.command = click.command()(lambda: [None for i in __import__("tqdm").tqdm(range(2), "outer")])
main()
"""


def test_bars_and_colours() -> None:
    """In a process: the library reads its environment once. Neither a pipe nor NO_COLOR sees an escape sequence."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", LOUD, *arguments]
        return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)

    assert "outer: 100%" in run("doctor").stderr
    assert run("-q", "doctor").stderr == run("doctor", "-q").stderr == ""
    assert "\x1b" not in run("--help", NO_COLOR="1", FORCE_COLOR="1").stdout


def test_bars_leave_it_to_the_user_whether_they_are_shown() -> None:
    """What is passed as ``disable`` goes before the environment, which is how --quiet speaks to tqdm."""
    root = Path(__file__).resolve().parents[3]
    files = [path for folder in ("genaug", "plugins", "integrations") for path in (root / folder).rglob("*.py")]
    assert [path for path in files if re.search(r"tqdm\([^\n]*disable=", path.read_text("utf-8"))] == []


# ---------------------------------------------------------------------- completion


def completed(*words: str, incomplete: str = "") -> list[str]:
    return [item.value for item in ShellComplete(group, {}, "genaug", "_").get_completions(list(words), incomplete)]


@pytest.mark.parametrize(
    ("words", "incomplete", "expected"),
    [
        ((), "pu", {"push", "pull"}),
        (("run",), "matchm", {"matchmask", "matchmask-pp"}),
        (("run",), "rec", {"recipe.yaml", "recipes/"}),
        (("check",), "recipes/", {"recipes/own.toml"}),
        (("probe",), "matchm", {"matchmask", "matchmask-pp"}),
        (("quickstart", "--method"), "scribblegen-", {"scribblegen-short"}),
        (("export", "synthetic", "out", "--to"), "voc", {"voc"}),
        (("report", "synthetic", "--skip"), "dup", {"duplicates"}),
        (("push", "a", "me/a", "--license"), "cc0", {"cc0-1.0"}),
        (("new-plugin", "x", "--kind"), "mix", {"mixer"}),
        (("run", "r.yaml"), "generator.use=scrib", {"generator.use=scribblegen"}),  # zsh, fish
        (("run", "r.yaml", "generator.use"), "=", {"matchmask", "scribblegen"}),  # bash
        (("run", "r.yaml", "generator.use", "="), "scrib", {"scribblegen"}),
        (("run", "r.yaml"), "data.f", {"data.format="}),
        (("run", "r.yaml", "data.format=folder"), "", {"generator.use="}),
        (("pull", "a/b"), "--qui", {"--quiet"}),
    ],
)
def test_what_tab_offers(
    words: tuple[str, ...], incomplete: str, expected: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("recipe.yaml", "recipes/own.toml", "recipes/notes.txt", "records.csv"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    found = set(completed(*words, incomplete=incomplete))
    assert found >= expected
    if incomplete not in ("", "="):
        assert found == expected


def test_every_shell_gets_a_script() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs/how-to/command-line.md").read_text("utf-8")
    for shell in ("bash", "zsh", "fish"):
        assert f"_GENAUG_COMPLETE={shell}_source genaug" in page
        result = CliRunner().invoke(
            group, prog_name="genaug", complete_var="_GENAUG_COMPLETE", env={"_GENAUG_COMPLETE": f"{shell}_source"}
        )
        assert result.exit_code == 0
        assert f"_GENAUG_COMPLETE={shell}_complete" in result.stdout


def test_completing_imports_no_heavy_library() -> None:
    """As bash asks: it splits words at the equals sign."""
    code = "import sys, atexit; atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
    code += "sys.argv[0] = 'genaug'; from genaug.__main__ import main; main()"
    words = {"COMP_WORDS": "genaug run r.yaml generator.use = scrib", "COMP_CWORD": "5"}
    environment = {**os.environ, "_GENAUG_COMPLETE": "bash_complete", **words}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "plain,scribblegen\n")
    assert {"torch", "diffusers", "transformers", "huggingface_hub"}.isdisjoint(done.stderr.split())


# ---------------------------------------------------------------------- dry runs of verbs that had none


def genaug(*arguments: object) -> dict[str, object]:
    result = CliRunner().invoke(group, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)  # type: ignore[no-any-return]


@pytest.fixture
def data(tmp_path: Path, write_pairs: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    import numpy as np

    monkeypatch.chdir(tmp_path)
    return write_pairs({"a": np.array([[0, 1]], np.uint8)})


def test_init_shows_its_recipe(data: Path) -> None:
    before = sorted(data.rglob("*"))
    shown = CliRunner().invoke(group, ["init", str(data), "--dry-run"])
    plan = genaug("init", data, "--dry-run")
    assert sorted(data.rglob("*")) == before
    made = genaug("init", data)
    text = Path("recipe.yaml").read_text("utf-8")
    assert shown.stdout.rstrip() == text.rstrip()
    assert plan == {**made, "dry_run": True}
    assert made["text"] == text
    assert (made["files"], made["problems"]) == (["recipe.yaml"], [])
    assert "Nothing was written." in shown.stderr


def test_a_quickstart_says_what_it_would_show(tmp_path: Path) -> None:
    plan = genaug(
        "quickstart", "--method", "matchmask-short", "--output", tmp_path / "q", "--device", "cpu", "--dry-run"
    )
    assert (plan["method"], plan["begun"], plan["dry_run"]) == ("matchmask-short", False, True)
    assert not (tmp_path / "q").exists()
    result = CliRunner().invoke(group, ["quickstart", "--method", "nothing", "--dry-run"])
    assert result.exit_code == 2


def test_a_probe_says_what_it_would_look_at(data: Path) -> None:
    Path("recipe.yaml").write_text(
        "{extends: matchmask, labels: {names: [a, b]}, data: {format: folder, images: images, masks: masks}, "
        "generator: {base: genaug-tiny}, filters: [], output: out}"
    )
    plan = genaug("probe", "recipe.yaml", "--device", "cpu", "--epochs", "2", "--dry-run")
    assert (plan["samples"], plan["epochs"], plan["mode"]) == (1, 2, "gradient")
    assert str(plan["output"]).endswith("out/probe")
    assert not Path("out").exists()


def test_a_probe_refuses_data_that_the_generator_cannot_learn_from(data: Path) -> None:
    Path("recipe.yaml").write_text(
        "{extends: matchmask, labels: {names: [a, b]}, data: {format: folder, images: images}, "
        "generator: {base: genaug-tiny}, filters: [], output: out}"
    )
    result = CliRunner().invoke(group, ["probe", "recipe.yaml", "--device", "cpu", "--dry-run"])
    assert result.exit_code == 2
    assert "generator: the labelled samples have no masks" in result.stderr
