"""Plugins as real distributions on sys.path: found, broken, clashing, disabled."""

import logging
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from genaug.config import read_recipe
from genaug.errors import MissingDependencyError, PluginError, PluginWarning, UnknownComponentError
from genaug.registry import GROUP, Registry, is_installed

Install = Callable[..., None]

GOOD = """
from genaug import Component, hookimpl

@hookimpl
def genaug_components():
    yield Component("filter", "{name}", "{module}:Target", summary="says yes")

@hookimpl
def genaug_recipes():
    return {{"{name}-recipe": "{module}:recipe.yaml"}}

class Target:
    pass
"""


def good(name: str, module: str) -> str:
    return GOOD.format(name=name, module=module)


def installed(*names: str) -> list[metadata.EntryPoint]:
    """Entry points of the distributions that a test installed, as the interpreter finds them."""
    return [e for e in metadata.entry_points(group=GROUP) if e.dist is not None and e.dist.name in names]


def test_a_good_plugin_is_listed_with_its_distribution(install: Install) -> None:
    install("acme-filters", {"acme_plugin": good("acme", "acme_plugin")}, {"acme": "acme_plugin"}, version="2.3")
    registry = Registry(installed("acme-filters"))
    (record,) = registry.plugins
    assert (record.name, record.distribution, record.version, record.error) == ("acme", "acme-filters", "2.3", None)
    assert registry.names("filter") == ["acme"]
    assert registry.recipe_path("acme-recipe") == "acme_plugin:recipe.yaml"
    assert registry.load(registry.component("filter", "acme")).__name__ == "Target"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("1 / 0", "ZeroDivisionError"),
        (
            "from genaug import hookimpl\n@hookimpl\ndef genaug_component(): return []",
            "Did you mean 'genaug_components'?",
        ),
        ("def genaug_components(): return []", "genaug_components is not marked as a hook"),
        ("from genaug import hookimpl\n@hookimpl\ndef genaug_components(): yield 'x'", "genaug_components yielded 'x'"),
        ("from genaug import hookimpl\n@hookimpl\ndef genaug_components(registry): return []", "{'registry'} are"),
        (
            "from genaug import Component, hookimpl\n@hookimpl\n"
            "def genaug_components():\n    yield Component('filtre', 'a', 'm:C')",
            "component kind 'filtre'",
        ),
        (
            good("twice", "bad_plugin").replace("    yield ", "    for _ in 'ab': yield "),
            "yielded filter 'twice' twice",
        ),
        (
            "from genaug import hookimpl\n@hookimpl\ndef genaug_recipes(): return {7: 'm:a'}",
            "genaug_recipes returned 7",
        ),
        ("from genaug import hookimpl\n@hookimpl\ndef genaug_recipes(): return {'a': 7}", "returned 'a': 7"),
        ("from genaug import hookimpl\n@hookimpl\ndef genaug_recipes(): return 7", "TypeError"),
    ],
)
def test_a_broken_plugin_is_kept_with_its_error_and_harms_no_other(install: Install, text: str, told: str) -> None:
    install("bad-dist", {"bad_plugin": text}, {"aaa": "bad_plugin"})
    install("good-dist", {"fine_plugin": good("fine", "fine_plugin")}, {"zzz": "fine_plugin"})
    with pytest.warns(PluginWarning, match=r"'aaa' \(bad-dist 1\.0\) could not be loaded") as warned:
        registry = Registry(installed("bad-dist", "good-dist"))
    assert len(warned) == 1
    assert told in (registry.plugins[0].error or "")
    assert registry.names("filter") == ["fine"]
    with pytest.raises(UnknownComponentError, match=r"Plugins that could not be loaded: aaa"):
        registry.component("filter", "wanted")


def test_a_refused_plugin_leaves_no_hook_behind(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    text = good("half", "half_plugin") + "\n@hookimpl\ndef genaug_stage_finishd(stage): 1 / 0\n"
    text += "\n@hookimpl\ndef genaug_stage_finished(stage, report): report.append(stage)\n"
    install("half-dist", {"half_plugin": text}, {"half": "half_plugin"})
    with pytest.warns(PluginWarning, match="genaug_stage_finishd"):
        registry = Registry(installed("half-dist"))
    seen: list[str] = []
    registry.stage_finished("generate", seen)  # type: ignore[arg-type]
    assert (seen, registry.names("filter"), caplog.records) == ([], [], [])


def test_a_recipe_that_cannot_be_read_is_its_plugins_fault(install: Install) -> None:
    install("flat-dist", {"flat_plugin": good("flat", "flat_plugin")}, {"flat": "flat_plugin"})  # a module, no package
    with pytest.raises(PluginError, match=r"recipe flat-recipe: its file flat_plugin:recipe\.yaml cannot be read"):
        read_recipe("flat-recipe", Registry(installed("flat-dist")))


def test_strict_mode_stops_at_the_first_broken_plugin(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("bad-dist", {"strict_plugin": "1 / 0"}, {"bad": "strict_plugin"})
    monkeypatch.setenv("GENAUG_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError, match=r"plugin bad \(bad-dist\): ZeroDivisionError"):
        Registry(installed("bad-dist"))
    monkeypatch.setenv("GENAUG_STRICT_PLUGINS", "0")
    with pytest.warns(PluginWarning):
        Registry(installed("bad-dist"))


def test_disabled_plugins_are_not_even_imported(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("bad-dist", {"off_plugin": "1 / 0"}, {"off": "off_plugin"})
    monkeypatch.setenv("GENAUG_DISABLE_PLUGINS", "other, off")
    (record,) = Registry(installed("bad-dist")).plugins
    assert (record.disabled, record.error) == (True, None)
    assert "off_plugin" not in sys.modules


def test_a_name_of_two_plugins_is_nobodys_and_names_both_when_asked_for(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("one-dist", {"one_plugin": good("same", "one_plugin")}, {"one": "one_plugin"})
    install("two-dist", {"two_plugin": good("same", "two_plugin")}, {"two": "two_plugin"})
    install("good-dist", {"calm_plugin": good("calm", "calm_plugin")}, {"calm": "calm_plugin"})
    found = installed("one-dist", "two-dist", "good-dist")
    told = r"filter 'same' is provided by both 'one' \(one-dist\) and 'two' \(two-dist\)"
    with pytest.warns(PluginWarning, match=told) as warned:
        registry = Registry(found)
    assert len(warned) == 2
    assert [(p.name, p.error is None, len(p.components)) for p in registry.plugins] == [
        ("calm", True, 1), ("one", False, 0), ("two", False, 0),
    ]  # fmt: skip
    assert registry.names("filter") == ["calm"]
    assert registry.names("recipe") == ["calm-recipe"]
    with pytest.raises(PluginError, match=told) as error:
        registry.component("filter", "same", where="filters.0")
    assert str(error.value).startswith("filters.0: ")
    assert "GENAUG_DISABLE_PLUGINS to 'one' or 'two'" in str(error.value)
    with pytest.raises(PluginError, match=r"recipe 'same-recipe' is provided by both"):
        registry.recipe_path("same-recipe")
    with pytest.raises(PluginError, match=told):
        Registry(found, strict=True)
    monkeypatch.setenv("GENAUG_DISABLE_PLUGINS", "two")
    assert Registry(found).component("filter", "same").target == "one_plugin:Target"


def test_who_takes_a_name_of_genaugs_own_is_broken_and_genaug_is_not(install: Install) -> None:
    thief = good("folder", "thief_plugin").replace('"filter"', '"source"')
    thief = thief.replace("folder-recipe", "rest-recipe")  # free again once the thief is out
    install("thief-dist", {"thief_plugin": thief}, {"thief": "thief_plugin"})
    install("rest-dist", {"rest_plugin": good("rest", "rest_plugin")}, {"rest": "rest_plugin"})
    core = [e for e in metadata.entry_points(group=GROUP) if (e.dist and e.dist.name, e.name) == ("genaug", "core")]
    with pytest.warns(
        PluginWarning, match=r"source 'folder' is provided by both 'core' \(genaug\) and 'thief'"
    ) as told:
        registry = Registry([*core, *installed("thief-dist", "rest-dist")])
    assert len(told) == 1
    assert [p.name for p in registry.plugins if p.error] == ["thief"]
    assert registry.component("source", "folder").target.startswith("genaug.")
    assert registry.recipe_path("rest-recipe") == "rest_plugin:recipe.yaml"


def test_two_distributions_may_call_their_entry_points_alike(install: Install) -> None:
    install("one-dist", {"alike_one": good("first", "alike_one")}, {"plugin": "alike_one"})
    install("two-dist", {"alike_two": good("second", "alike_two")}, {"plugin": "alike_two"})
    assert Registry(installed("one-dist", "two-dist")).names("filter") == ["first", "second"]


def test_one_module_behind_two_entry_points_is_broken_once(install: Install) -> None:
    entry_points = {"first": "double_plugin", "second": "double_plugin"}
    install("double-dist", {"double_plugin": good("only", "double_plugin")}, entry_points)
    with pytest.warns(PluginWarning, match="'second'"):
        registry = Registry(installed("double-dist"))
    assert [p.error is None for p in registry.plugins] == [True, False]
    assert registry.names("filter") == ["only"]


def test_names_near_a_wrong_one_are_suggested(install: Install) -> None:
    install("good-dist", {"near_plugin": good("relative", "near_plugin")}, {"near": "near_plugin"})
    registry = Registry(installed("good-dist"))
    with pytest.raises(UnknownComponentError, match=r"filters\.0: no filter is called 'relativ'\. Did you mean"):
        registry.component("filter", "relativ", where="filters.0")
    with pytest.raises(KeyError):  # what a caller of a mapping would catch
        registry.component("filter", "x")


LOADS = """
from pydantic import BaseModel
from genaug import Component, hookimpl

@hookimpl
def genaug_components():
    yield Component("filter", "needy", "loads_plugin:A", requires=("no_such.module",), extra="ot")
    yield Component("filter", "foreign", "loads_plugin:A", requires=("no_such_module",))
    yield Component("filter", "absent", "loads_plugin:B")
    yield Component("filter", "raising", "loads_target:A", config="loads_plugin:Options")
    yield Component("filter", "plain", "loads_plugin:A", config="loads_plugin:Plain")
    yield Component("filter", "open", "loads_plugin:A", config="loads_plugin:Open")

class Options(BaseModel): ...
class Plain: ...
class Open(BaseModel):
    of: "Nowhere"
"""


def test_targets_fail_when_they_are_loaded_not_before(install: Install) -> None:
    modules = {"loads_plugin": LOADS, "loads_target": "raise RuntimeError('no licence')"}
    install("loads-dist", modules, {"loads": "loads_plugin"})
    registry = Registry(installed("loads-dist"))
    with pytest.raises(MissingDependencyError, match=r"pip install 'genaug\[ot\]'\.$"):
        registry.load(registry.component("filter", "needy"))
    with pytest.raises(MissingDependencyError, match=r"pip install no_such_module\.$"):
        registry.load(registry.component("filter", "foreign"))
    with pytest.raises(PluginError, match=r"filter absent -> loads_plugin:B: .*no attribute 'B'"):
        registry.load(registry.component("filter", "absent"))
    assert "loads_target" not in sys.modules
    assert registry.config_model(registry.component("filter", "raising")).__name__ == "Options"  # type: ignore[union-attr]
    with pytest.raises(PluginError, match="RuntimeError: no licence"):
        registry.load(registry.component("filter", "raising"))
    assert registry.config_model(registry.component("filter", "absent")) is None
    with pytest.raises(PluginError, match=r"filter plain -> loads_plugin:Plain: not a pydantic model"):
        registry.config_model(registry.component("filter", "plain"))
    with pytest.raises(PluginError, match=r"filter open -> loads_plugin:Open: .*'Nowhere' is not defined"):
        registry.config_model(registry.component("filter", "open"))


def test_a_module_that_exits_at_import_is_an_error_and_ends_nothing(install: Install) -> None:
    text = good("leaver", "leaver_plugin").replace('"leaver_plugin:Target"', '"leaver_target:Target"')
    modules = {"leaver_plugin": text, "leaver_target": "raise SystemExit(0)"}
    install("leaver-dist", modules, {"leaver": "leaver_plugin"})
    registry = Registry(installed("leaver-dist"))
    with pytest.raises(PluginError, match=r"filter leaver -> leaver_target:Target: SystemExit: 0"):
        registry.load(registry.component("filter", "leaver"))


@pytest.mark.parametrize("raised", ["ValueError('mine')", "SystemExit('mine')"])
def test_observers_see_stages_and_their_failures_stop_nothing(
    install: Install, caplog: pytest.LogCaptureFixture, raised: str
) -> None:
    head = "from genaug import hookimpl\n@hookimpl\ndef genaug_stage_finished(stage, report):\n    "
    modules = {"watch_a": f"{head}raise {raised}", "watch_b": head + "report['seen'] = stage"}
    install("watchers", modules, {"a": "watch_a", "b": "watch_b"})
    report: dict[str, str] = {}
    with caplog.at_level(logging.ERROR, logger="genaug"):
        Registry(installed("watchers")).stage_finished("adapt", report)
    assert report == {"seen": "adapt"}
    assert f"{raised.partition('(')[0]}: mine" in caplog.text
    assert len(caplog.records) == 1


def test_what_plugins_print_leaves_standard_output_to_results(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    text = good("loud", "loud_plugin").replace("loud_plugin:Target", "loud_target:Target")
    text = f"print('import')\n{text}".replace("    yield", "    print('hook')\n    yield")
    text += "\n@hookimpl\ndef genaug_stage_finished(stage, report): print(stage)\n"
    modules = {"loud_plugin": text, "loud_target": "print('target')\nclass Target: ..."}
    install("loud-dist", modules, {"loud": "loud_plugin"})
    registry = Registry(installed("loud-dist"))
    registry.load(registry.component("filter", "loud"))
    registry.stage_finished("adapt", {})
    assert tuple(capsys.readouterr()) == ("", "import\nhook\ntarget\nadapt\n")


def test_is_installed_imports_nothing() -> None:
    assert is_installed("json.tool")
    assert not is_installed("no_such_module.sub")
    code = "import sys; from genaug.registry import is_installed as i; assert i('torch'); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_the_core_offers_its_sources_as_a_plugin(core_registry: Registry, tmp_path: Path) -> None:
    component = core_registry.component("source", "folder")
    assert core_registry.config_model(component).__name__ == "FolderOptions"  # type: ignore[union-attr]
    assert core_registry.load(component).__name__ == "FolderSource"
