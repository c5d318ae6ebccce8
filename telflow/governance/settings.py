"""Settings of redaction: what to look for, where, and what becomes of it."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from telflow.errors import nearest
from telflow.governance.detectors import DETECTORS
from telflow.schema import ANY_VALUE, ATTRIBUTE, RECORD_SCHEMAS, RESOURCES, SCOPES
from telflow.settings import Settings

__all__ = [
    "DEFAULT_KEYS",
    "PLACES",
    "Action",
    "DetectorSettings",
    "HashKey",
    "KeyRule",
    "PatternRule",
    "RedactSettings",
]

Action = Literal["mask", "hash", "delete"]
"""`mask` puts a label in place of what was found, `hash` its keyed hash, `delete` removes the attribute or empties the
field it was found in."""


def _places(dtype: pa.DataType, place: str) -> Iterator[str]:
    """Places inside a column of this type."""
    if pa.types.is_list(dtype):
        yield from _places(dtype.value_type, place)
    elif dtype.equals(ATTRIBUTE):
        yield from (f"{place}.key", f"{place}.value")
    elif dtype.equals(ANY_VALUE):
        yield f"{place}.value"
    elif pa.types.is_struct(dtype):
        for field in dtype:
            yield from _places(field.type, f"{place}.{field.name}")
    elif any(is_text(dtype) for is_text in _TEXT):
        yield place


_TEXT = (pa.types.is_string, pa.types.is_binary, pa.types.is_fixed_size_binary)
_TABLES = [*(("record", schema) for schema in RECORD_SCHEMAS.values()), ("resource", RESOURCES), ("scope", SCOPES)]
_FOUND = (p for table, schema in _TABLES for field in schema for p in _places(field.type, f"{table}.{field.name}"))

PLACES: tuple[str, ...] = tuple(p for p in dict.fromkeys(_FOUND) if p != "resource.tenant")
"""Every place of a batch that can hold text, such as `record.attributes.value` or `scope.name`. The tenant is not among
them: it is no data of the sender's but telflow's own mark."""


class DetectorSettings(Settings):
    """What becomes of the findings of one detector."""

    enabled: bool = True
    """Whether to look for it at all."""
    action: Action | None = None
    """What to do; the `action` of the operator when absent."""
    label: str | None = None
    """What stands in the brackets of a mask; the detector's own label when absent."""
    keep_last: int = Field(default=0, ge=0, le=8)
    """How many last characters a mask shows, as in `[CARD:1111]`; none of a text not longer than twice that."""


class PatternRule(Settings):
    """A detector of one's own."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Under which its findings are counted."""
    pattern: str
    """Regular expression in the syntax of the Rust `regex` crate (no look-around, no back-references; linear time).
    When it has groups, only what the first one that takes part matched is replaced."""
    keywords: tuple[str, ...] = ()
    """Values without any of these texts (in either case) are not searched: makes a pattern cheap that does not start
    with fixed characters."""
    check: Literal["luhn"] | None = None
    """`luhn`: the digits of a match must have a correct check digit."""
    action: Action | None = None
    """What to do; the `action` of the operator when absent."""
    label: str | None = None
    """What stands in the brackets of a mask; the name in upper case when absent."""
    keep_last: int = Field(default=0, ge=0, le=8)
    """How many last characters a mask shows."""

    @field_validator("keywords")
    @classmethod
    def _not_empty(cls, keywords: tuple[str, ...]) -> tuple[str, ...]:
        if not all(keywords):
            raise ValueError("expected keywords of one character or more, got an empty one")
        return keywords


class KeyRule(Settings):
    """What becomes of the values of attributes by their name, whatever they hold."""

    key: str = Field(min_length=1)
    """Name of the attribute, in either case; `*` stands for any characters, `?` for one. Inside maps the name of the
    entry and its path (`user.address.street`, up to 1024 bytes) are both tried."""
    action: Literal["mask", "hash", "delete", "keep"] = "mask"
    """What to do with the whole value; `keep` leaves it as it is, unsearched."""
    label: str = "REDACTED"
    """What stands in the brackets of a mask."""


_SECRET_NAMES = (
    *("password", "passwd", "passphrase", "secret", "client_secret", "api_key", "apikey", "api-key", "x-api-key"),
    *("access_token", "refresh_token", "id_token", "auth_token", "session_token", "private_key", "secret_key"),
    *("secret_access_key", "authorization", "proxy-authorization", "cookie", "set-cookie", "x-auth-token"),
    *("x-amz-security-token", "credit_card", "card_number", "cvv", "ssn"),
)

DEFAULT_KEYS: tuple[KeyRule, ...] = tuple(
    KeyRule(key=key) for name in _SECRET_NAMES for key in (name, f"*.{name}", f"*_{name}")
)
"""Attributes whose values are masked by name: passwords, tokens, credentials in headers, cookies."""


class HashKey(Settings):
    """Where the secret of the keyed hash comes from: one of the two."""

    env: str | None = None
    """Name of an environment variable that holds it."""
    file: Path | None = None
    """File that holds it; white space around it does not count."""

    @model_validator(mode="after")
    def _one_source(self) -> HashKey:
        if (self.env is None) == (self.file is None):
            raise ValueError("expected either env or file")
        return self


class RedactSettings(Settings):
    """What redaction looks for, where, and what it does.

    The defaults find personal data and secrets everywhere and mask them; addresses of the internet are looked for only
    when `detectors` names them.
    """

    action: Action = "mask"
    """What to do with findings unless a rule says otherwise."""
    detectors: Mapping[str, DetectorSettings] = Field(default_factory=dict)
    """Detectors by name: to switch one on (`ipv4: {}`) or off, or to choose its action."""
    patterns: tuple[PatternRule, ...] = ()
    """Detectors of one's own."""
    keys: tuple[KeyRule, ...] = ()
    """Rules by attribute name; the first that fits decides."""
    default_keys: bool = True
    """Whether the values of attributes named like a password or token are masked, after `keys` has had its say."""
    places: tuple[str, ...] = ("*",)
    """Where to look: places such as `record.attributes.value` or `resource.*`, with `*` for any characters."""
    hash_key: HashKey | None = None
    """The secret of the keyed hash; needed by the action `hash`. The same secret gives the same hash everywhere, so
    hashed values can still be joined."""
    hash_digits: int = Field(default=32, ge=8, le=64)
    """Hexadecimal digits of a hash (HMAC-SHA-256, cut off)."""

    @field_validator("detectors")
    @classmethod
    def _known_detectors(cls, detectors: Mapping[str, DetectorSettings]) -> Mapping[str, DetectorSettings]:
        for name in detectors:
            if name not in DETECTORS:
                close = nearest(name, DETECTORS)
                hint = f"; did you mean {close}?" if close else ""
                raise ValueError(f"unknown detector {name!r}{hint} (known: {', '.join(DETECTORS)})")
        return detectors

    @field_validator("places")
    @classmethod
    def _known_places(cls, places: tuple[str, ...]) -> tuple[str, ...]:
        for place in places:
            if not fnmatch.filter(PLACES, place):
                close = nearest(place, PLACES)
                hint = f"; did you mean {close}?" if close else ""
                raise ValueError(f"{place!r} is no place of a batch{hint}")
        return places

    @model_validator(mode="after")
    def _consistent(self) -> RedactSettings:
        names = [rule.name for rule in self.patterns]
        taken = [name for name in names if name in DETECTORS or names.count(name) > 1]
        if taken:
            raise ValueError(f"patterns: the name {taken[0]!r} is taken; expected one of its own for each rule")
        actions = [self.action, *(rule.action for rule in self.keys), *(rule.action for rule in self.patterns)]
        actions += [detector.action for detector in self.detectors.values() if detector.enabled]
        if "hash" in actions and self.hash_key is None:
            raise ValueError("the action hash needs hash_key: a secret from env or file")
        return self

    def skipped_places(self) -> tuple[str, ...]:
        """Return the places not to look at."""
        wanted = [re.compile(fnmatch.translate(glob)) for glob in self.places]
        skipped = [place for place in PLACES if not any(pattern.match(place) for pattern in wanted)]
        return (*skipped, "resource.tenant")
