from __future__ import annotations

import pytest

from graph_transformer.config import ModelConfig
from graph_transformer.errors import TaskError
from graph_transformer.importing import check_path, load_object


def test_a_path_gives_what_it_names() -> None:
    """package.module:name is that name of that module."""
    assert load_object("model.module", "graph_transformer.config:ModelConfig") is ModelConfig


@pytest.mark.parametrize("path", ["name", "package:", ":name", "a.b:c.d", "a-b:c", "a b:c", 3, None])
def test_a_path_that_is_none_is_refused_before_anything_is_imported(path: object) -> None:
    """The key it was given under is named."""
    with pytest.raises(TaskError) as refused:
        check_path("model.module", path)
    assert refused.value.path == "model.module"


def test_what_is_missing_is_said() -> None:
    """A module that is not there and a name that it lacks are two messages."""
    with pytest.raises(TaskError, match="No module named 'no_such_package'"):
        load_object("model.module", "no_such_package:Model")
    with pytest.raises(TaskError, match="a name that the module"):
        load_object("model.module", "graph_transformer.config:Nothing")
