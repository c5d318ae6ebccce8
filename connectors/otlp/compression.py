"""Content encodings of OTLP/HTTP, decompressed no further than a limit."""

from __future__ import annotations

import zlib

import zstandard

__all__ = ["CONTENT_ENCODINGS", "CorruptBodyError", "TooLargeError", "compress", "decompress"]

CONTENT_ENCODINGS = ("gzip", "deflate", "zstd")
"""What `decompress` understands besides ``identity``."""

_GZIP = 16 + zlib.MAX_WBITS
_PIECE_BYTES = 64  # of zstd at a time: a block of 4 bytes may stand for 128 KiB, so 2 MiB of content at most
_ZLIB_METHOD = 8  # low half of the first byte of a zlib stream; raw deflate has no header


class CorruptBodyError(ValueError):
    """A body is not what its Content-Encoding says, or ends too early."""


class TooLargeError(ValueError):
    """A body decompresses to more than the limit."""


def compress(body: bytes, encoding: str) -> bytes:
    """Return `body` in one of the content encodings; `none` leaves it as it is.

    >>> decompress(compress(b"telemetry" * 9, "gzip"), "gzip", 100) == b"telemetry" * 9
    True
    """
    if encoding == "none":
        return body
    if encoding == "zstd":
        return zstandard.ZstdCompressor(level=1).compress(body)
    compressor = zlib.compressobj(1, zlib.DEFLATED, _GZIP if encoding == "gzip" else zlib.MAX_WBITS)
    return compressor.compress(body) + compressor.flush()


def decompress(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Return the content of a compressed body.

    Hardly more than `max_bytes` are ever produced, whatever the body promises.

    Args:
        body: The whole compressed body.
        encoding: One of `CONTENT_ENCODINGS`.
        max_bytes: Largest content allowed.

    Raises:
        CorruptBodyError: The body is damaged, incomplete or followed by something else.
        TooLargeError: The content is larger than `max_bytes`.
    """
    if encoding == "zstd":
        return _unzstd(body, max_bytes)
    raw = encoding == "deflate" and (not body or body[0] & 0x0F != _ZLIB_METHOD)
    return _inflate(body, _GZIP if encoding == "gzip" else -zlib.MAX_WBITS if raw else zlib.MAX_WBITS, max_bytes)


def _inflate(body: bytes, wbits: int, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    room = max_bytes
    rest = body
    while rest or not parts:  # gzip allows several members one after another (RFC 1952, 2.2)
        stream = zlib.decompressobj(wbits)
        try:
            part = stream.decompress(rest, room + 1)
        except zlib.error as error:
            raise CorruptBodyError(str(error)) from None
        if len(part) > room:
            raise TooLargeError(f"more than {max_bytes} bytes after decompression")
        if not stream.eof:
            raise CorruptBodyError("the compressed body ends too early")
        parts.append(part)
        room -= len(part)
        rest = stream.unused_data
        if rest and wbits != _GZIP:
            raise CorruptBodyError("the compressed body is followed by something else")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _unzstd(body: bytes, max_bytes: int) -> bytes:
    try:
        declared = zstandard.frame_content_size(body)  # -1: the frame does not say
        if declared > max_bytes:
            raise TooLargeError(f"more than {max_bytes} bytes after decompression")
        return zstandard.ZstdDecompressor().decompress(body, max_output_size=max_bytes, allow_extra_data=False)
    except zstandard.ZstdError:
        # Too large, damaged, or several frames: the careful way finds out which.
        return _unzstd_frames(body, max_bytes)


def _unzstd_frames(body: bytes, max_bytes: int) -> bytes:
    content = bytearray()
    position = 0
    while position < len(body) or not content:
        # RFC 8878, 3.1.1.1.2 recommends to support windows up to 8 MiB: a larger one only serves to take memory.
        frame = zstandard.ZstdDecompressor(max_window_size=8 << 20).decompressobj()
        while not frame.eof:
            piece = body[position : position + _PIECE_BYTES]
            if not piece:
                raise CorruptBodyError("the compressed body ends too early")
            try:
                content += frame.decompress(piece)
            except zstandard.ZstdError as error:
                raise CorruptBodyError(str(error)) from None
            if len(content) > max_bytes:
                raise TooLargeError(f"more than {max_bytes} bytes after decompression")
            position += len(piece)
        position -= len(frame.unused_data)
    return bytes(content)
