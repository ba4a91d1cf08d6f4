"""Errors on their way through processes that have no business with their classes."""

from __future__ import annotations

import importlib
import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actorpool.errors import RemoteError, WorkerUnavailable
from actorpool.messages import Err
from actorpool.serialization.exceptions import OpaqueError, dump_error, load_error, name_of, opaque_error
from actorpool.serialization.pickling import Pickled

ERRORS = """
from actorpool import PermanentError
class Closed(Exception):
    pass
class Never(PermanentError):
    pass
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A user's module; `forget(shop)` and nobody can import it any more."""
    (tmp_path / "shop_of_errors.py").write_text(ERRORS)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("shop_of_errors")
    sys.modules.pop("shop_of_errors", None)


def forget(module: Any) -> None:
    os.unlink(module.__file__)
    importlib.invalidate_caches()
    del sys.modules[module.__name__]


def test_an_error_from_elsewhere_says_what_it_is_without_its_class(shop: Any) -> None:
    packed = Pickled(dump_error(shop.Closed("after hours")))
    forget(shop)
    error = opaque_error(packed, elsewhere=True)
    assert isinstance(error, OpaqueError)
    assert (str(error), name_of(error), repr(error)) == (
        "after hours",
        "Closed",
        "shop_of_errors.Closed('after hours')",
    )
    assert dump_error(error) == packed.data, "passed on as it came"
    ours = WorkerUnavailable("no worker can connect", pool="db", cause=error)
    data = dump_error(ours)  # without a look inside
    told = load_error(data)
    assert isinstance(told, WorkerUnavailable)
    assert isinstance(told.cause, RemoteError), "who does not know the class either gets its text"
    assert "after hours" in str(told.cause)


def test_who_catches_it_has_the_original(shop: Any) -> None:
    packed = Pickled(dump_error(shop.Closed("after hours")))
    error = opaque_error(packed, elsewhere=True)
    assert type(opaque_error(packed, elsewhere=False)) is shop.Closed
    for loaded in (load_error(dump_error(error)), pickle.loads(pickle.dumps(error))):
        assert type(loaded) is shop.Closed
        assert loaded.args == ("after hours",)
    around = pickle.loads(pickle.dumps(Err(WorkerUnavailable("no worker", pool="db", cause=error)))).error
    assert type(around.cause) is shop.Closed
    assert around.__cause__ is around.cause
    assert around.pool == "db"


def test_one_of_ours_learns_on_the_way_which_pool_it_speaks_of(shop: Any) -> None:
    error = opaque_error(Pickled(dump_error(shop.Never("closed for good"))), elsewhere=True)
    named = load_error(dump_error(error, "db"))
    assert type(named) is shop.Never
    assert named.pool == "db"  # type: ignore[attr-defined]
    known = opaque_error(Pickled(dump_error(shop.Never("closed"), "first")), elsewhere=True)
    assert load_error(dump_error(known, "second")).pool == "first"  # type: ignore[attr-defined]
