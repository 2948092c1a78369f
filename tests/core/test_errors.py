import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genaug.errors import (
    AdapterError,
    ConfigError,
    DataError,
    GenaugError,
    MissingDependencyError,
    PluginError,
    SampleError,
    StoreError,
    UnknownComponentError,
    did_you_mean,
    missing_dependency,
)


def test_a_message_says_where_what_allowed_and_what_to_do() -> None:
    error = ConfigError("got 3", where="generator.steps", allowed="1 or 2", hint="Lower it")
    assert str(error) == "generator.steps: got 3. Allowed: 1 or 2. Lower it."
    assert (error.where, error.found, error.allowed, error.hint) == ("generator.steps", "got 3", "1 or 2", "Lower it")


def test_a_question_keeps_its_mark_and_nothing_gets_two_full_stops() -> None:
    assert str(ConfigError("unknown.", hint="Did you mean 'x'?")) == "unknown. Did you mean 'x'?"


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (ConfigError, ValueError),
        (UnknownComponentError, KeyError),
        (PluginError, ImportError),
        (MissingDependencyError, ImportError),
        (SampleError, ValueError),
        (DataError, ValueError),
        (StoreError, OSError),
        (AdapterError, ValueError),
    ],
)
def test_each_error_is_also_the_builtin_that_callers_catch(error: type[GenaugError], builtin: type[Exception]) -> None:
    with pytest.raises(builtin, match="found it"):
        raise error("found it")
    assert issubclass(error, GenaugError)


@given(st.text(min_size=1), st.none() | st.text(min_size=1), st.none() | st.text(min_size=1))
def test_errors_survive_the_way_out_of_a_worker_process(found: str, where: str | None, hint: str | None) -> None:
    for error in (ConfigError(found, where=where, hint=hint), UnknownComponentError(found, where=where, hint=hint)):
        back = pickle.loads(pickle.dumps(error))
        assert (str(back), back.found, back.where, back.hint) == (str(error), found, where, hint)


def test_a_data_error_lists_every_problem_on_its_own_line_and_survives_pickling() -> None:
    error = DataError("2 problems", problems=["a.png is broken", "b.png too"], where="data", hint="Mend them")
    assert str(error) == "data: 2 problems. Mend them.\n  - a.png is broken\n  - b.png too"
    back = pickle.loads(pickle.dumps(error))
    assert (str(back), back.problems) == (str(error), ("a.png is broken", "b.png too"))


def test_did_you_mean_names_the_nearest_or_all() -> None:
    assert did_you_mean("matchmsk", ["scribblegen", "matchmask"]) == "Did you mean 'matchmask'?"
    assert did_you_mean("zzz", ["b", "a"]) == "Known names: a, b"
    assert did_you_mean("zzz", []) == "Known names: none"


def test_a_missing_dependency_ends_with_the_command_that_brings_it() -> None:
    error = missing_dependency("diffusers", "diffusion", where="generator matchmask")
    assert str(error).endswith("Install it with: pip install 'genaug[diffusion]'.")
