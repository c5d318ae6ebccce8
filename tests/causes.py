"""Errors of a running flow: Bytewax wraps what an operator raised, the cause is further in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

__all__ = ["raises_inside"]


@contextmanager
def raises_inside(kind: type[Exception], match: str) -> Iterator[None]:
    """Expect an error with a cause of `kind` whose text matches."""
    with pytest.raises(Exception) as caught:
        yield
    cause: BaseException | None = caught.value
    while cause is not None and not isinstance(cause, kind):
        cause = cause.__cause__
    assert cause is not None, f"no {kind.__name__} in {caught.value!r}"
    assert re.search(match, str(cause)), str(cause)
