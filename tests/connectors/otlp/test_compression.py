"""Content encodings: round trips, limits, damage."""

from __future__ import annotations

import contextlib
import gzip
import os

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from connectors.otlp.compression import (
    CONTENT_ENCODINGS,
    CorruptBodyError,
    TooLargeError,
    compress,
    decompress,
)
from tests.strategies import thorough


@thorough(50)
@given(body=st.binary(max_size=5000), encoding=st.sampled_from(CONTENT_ENCODINGS))
def test_what_is_compressed_comes_back(body: bytes, encoding: str) -> None:
    """Any body survives any encoding, with a limit of exactly its size."""
    assert decompress(compress(body, encoding), encoding, len(body)) == body


@pytest.mark.parametrize("encoding", CONTENT_ENCODINGS)
def test_one_byte_over_the_limit_is_too_large(encoding: str) -> None:
    """The limit is exact."""
    with pytest.raises(TooLargeError, match="more than 999 bytes"):
        decompress(compress(bytes(1000), encoding), encoding, 999)


def test_zstd_that_does_not_say_its_size_is_limited_too() -> None:
    """A streamed frame has no content size in its header."""
    stream = zstandard.ZstdCompressor().compressobj()
    body = stream.compress(bytes(100_000)) + stream.flush()
    assert decompress(body, "zstd", 100_000) == bytes(100_000)
    with pytest.raises(TooLargeError):
        decompress(body, "zstd", 99_999)


@thorough(50)
@given(data=st.data(), encoding=st.sampled_from(CONTENT_ENCODINGS))
def test_every_truncation_is_noticed(data: st.DataObject, encoding: str) -> None:
    """No prefix of a compressed body passes for the whole."""
    body = compress(bytes(range(256)) * 4, encoding)
    cut = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(CorruptBodyError):
        decompress(body[:cut], encoding, 1 << 20)


@thorough(50)
@given(body=st.binary(max_size=300), encoding=st.sampled_from(CONTENT_ENCODINGS))
def test_garbage_raises_nothing_else(body: bytes, encoding: str) -> None:
    """Whatever the bytes, the outcome is content within the limit or one of the two errors."""
    with contextlib.suppress(CorruptBodyError, TooLargeError):
        assert len(decompress(body, encoding, 1000)) <= 1000


@pytest.mark.parametrize(("encoding", "one"), [("gzip", gzip.compress), ("zstd", zstandard.compress)])
def test_bodies_of_several_members_are_read_whole(encoding: str, one: object) -> None:
    """Members of gzip (RFC 1952) and frames of zstd (RFC 8878) may follow one another; the limit is for all."""
    assert callable(one)
    body = one(b"a" * 10) + one(b"b" * 10)
    assert decompress(body, encoding, 20) == b"a" * 10 + b"b" * 10
    with pytest.raises(TooLargeError):
        decompress(body, encoding, 19)


@pytest.mark.parametrize("encoding", CONTENT_ENCODINGS)
def test_what_follows_the_content_is_refused(encoding: str) -> None:
    """Bytes after the end are damage."""
    with pytest.raises(CorruptBodyError):
        decompress(compress(b"content", encoding) + b"more", encoding, 1000)


def test_a_window_too_large_to_be_honest_is_refused() -> None:
    """Memory for a zstd window of 128 MiB is not granted to a sender."""
    parameters = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    body = stream.compress(os.urandom(300)) + stream.flush()
    with pytest.raises(CorruptBodyError):
        decompress(body, "zstd", 100)


def test_none_leaves_the_body_as_it_is() -> None:
    """An exporter without compression copies nothing."""
    body = b"x" * 100
    assert compress(body, "none") is body
