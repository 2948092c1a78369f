import ast
import subprocess
import sys
from pathlib import Path

import pytest

import genaug


@pytest.mark.parametrize("name", genaug.__all__)
def test_every_public_name_resolves_to_itself(name: str) -> None:
    value = getattr(genaug, name)
    assert name in dir(genaug)
    if name != "__version__":
        assert getattr(value, "__name__", name) == name
        assert value.__doc__ or not callable(value)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(genaug.__file__).read_text("utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    imported = {(i.module, a.name) for i in block.body if isinstance(i, ast.ImportFrom) for a in i.names}
    assert {(module, name) for name, module in genaug._EXPORTS.items()} == imported


def test_wrong_names_are_attribute_errors_and_star_imports_work() -> None:
    with pytest.raises(AttributeError, match="module 'genaug' has no attribute 'Generater'"):
        genaug.Generater  # noqa: B018
    code = "from genaug import *; print(LabelSpace({0: 'a'}).ids)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "(0,)"
