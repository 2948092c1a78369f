from dataclasses import FrozenInstanceError

import pytest

from genaug.component import KINDS, Component
from genaug.errors import PluginError


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a", "match-mask", "sd-1.4", "x2"])
def test_well_formed_records(kind: str, name: str) -> None:
    component = Component(kind, name, "package.module:Class", config="package.config:Model")
    assert (component.kind, component.name, component.requires, component.extra) == (kind, name, (), None)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"kind": "generater"}, "component kind 'generater'. Allowed: generator, filter"),
        ({"name": "MatchMask"}, "component name 'MatchMask'"),
        ({"name": "a_b"}, "component name 'a_b'"),
        ({"name": "-a"}, "component name '-a'"),
        ({"name": ""}, "component name ''"),
        ({"target": "package.module.Class"}, "target 'package.module.Class'"),
        ({"target": "package.module:"}, "target 'package.module:'"),
        ({"config": "../model:X"}, "filter ok: config '../model:X'"),
        ({"requires": "torch"}, "filter ok: requires 'torch'. Allowed: a tuple"),  # a comma is soon forgotten
        ({"requires": (7,)}, r"filter ok: requires \(7,\)"),
    ],
)
def test_malformed_records_are_refused_where_they_are_written(fields: dict[str, object], told: str) -> None:
    with pytest.raises(PluginError, match=told):
        Component(**{"kind": "filter", "name": "ok", "target": "m:C", **fields})  # type: ignore[arg-type]


def test_records_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Component("filter", "a", "m:C").name = "b"  # type: ignore[misc]
