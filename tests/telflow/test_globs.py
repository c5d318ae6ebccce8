"""Globs over columns: as the standard library reads them."""

from __future__ import annotations

import fnmatch
import re

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from telflow.globs import glob_mask
from tests.strategies import thorough


@thorough(100)
@given(st.text("ab.*?[]\\+ \n$^é", max_size=6), st.text("ab.*?[]\\+ \n$^é", max_size=6))
def test_a_glob_matches_as_fnmatch_does(text: str, glob: str) -> None:
    """Save for brackets, which stand for themselves here."""
    expected = re.fullmatch(fnmatch.translate(glob.replace("[", "[[]")), text) is not None
    assert glob_mask(pa.array([text]), [glob]).to_pylist() == [expected]
