"""Redaction settings: what is wrong is refused with the place, what was expected, and a hint."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from telflow.governance import RedactSettings
from telflow.governance.settings import PLACES

_HASH = {"hash_key": {"env": "KEY"}}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"detectors": {"emial": {}}}, "did you mean email"),
        ({"detectors": {"zzz": {}}}, "unknown detector 'zzz' (known: email"),
        ({"detectors": {"email": {"action": "burn"}}}, "'mask', 'hash' or 'delete'"),
        ({"places": ["record.atributes.value"]}, "did you mean record.attributes.value"),
        ({"places": ["resource.tenant"]}, "is no place of a batch"),
        ({"action": "hash"}, "needs hash_key"),
        ({"detectors": {"email": {"action": "hash"}}}, "needs hash_key"),
        ({"keys": [{"key": "user.id", "action": "hash"}]}, "needs hash_key"),
        ({"patterns": [{"name": "a", "pattern": "abc", "action": "hash"}]}, "needs hash_key"),
        ({"hash_key": {}}, "expected either env or file"),
        ({"hash_key": {"env": "A", "file": "b"}}, "expected either env or file"),
        ({"patterns": [{"name": "email", "pattern": "abc"}]}, "'email' is taken"),
        ({"patterns": [{"name": "a", "pattern": "abc"}, {"name": "a", "pattern": "b"}]}, "'a' is taken"),
        ({"patterns": [{"name": "A b", "pattern": "abc"}]}, "should match pattern"),
        ({"patterns": [{"name": "a", "pattern": "abc", "keywords": [""]}]}, "expected keywords of one character"),
        ({"keys": [{"key": ""}]}, "at least 1 character"),
        ({"hash_digits": 4}, "greater than or equal to 8"),
        ({"unknown": 1}, "Extra inputs"),
    ],
)
def test_refuses(options: dict[str, Any], said: str) -> None:
    """One sentence that names what is wrong."""
    with pytest.raises(ValidationError) as caught:
        RedactSettings.model_validate(options)
    assert said in str(caught.value)


def test_accepts_what_a_file_may_say() -> None:
    """Every option at once, as plain data; a switched-off detector needs no key for its action."""
    settings = RedactSettings.model_validate(
        {
            **_HASH,
            "action": "delete",
            "detectors": {"ipv4": {}, "email": {"action": "hash"}, "iban": {"enabled": False}},
            "patterns": [{"name": "ticket", "pattern": "T-[0-9]+", "keywords": ["t-"], "check": "luhn"}],
            "keys": [{"key": "user.*", "action": "keep"}],
            "default_keys": False,
            "places": ["record.*", "scope.name"],
            "hash_digits": 16,
        }
    )
    assert RedactSettings.model_validate(settings.model_dump()) == settings
    RedactSettings.model_validate({"detectors": {"email": {"enabled": False, "action": "hash"}}})


def test_places_are_those_of_the_schema() -> None:
    """Every column that can hold text is a place; the tenant, which is telflow's own mark, never is."""
    for place in (
        *("record.name", "record.attributes.key", "record.attributes.value", "record.body.value"),
        *("record.events.name", "record.events.attributes.value", "record.links.trace_state", "record.links.span_id"),
        *("record.exemplars.filtered_attributes.value", "record.metadata.key", "record.unit", "record.irregular_ids"),
        *("resource.attributes.value", "resource.entity_refs.id_keys", "resource.schema_url", "scope.version"),
    ):
        assert place in PLACES
    assert "resource.tenant" not in PLACES
    assert not any("time" in place or "count" in place for place in PLACES)


def test_skipped_places_are_the_others() -> None:
    """A glob chooses, the rest and the tenant are skipped."""
    assert RedactSettings().skipped_places() == ("resource.tenant",)
    skipped = RedactSettings(places=("scope.*", "record.name")).skipped_places()
    assert set(skipped) == {p for p in PLACES if not p.startswith("scope.") and p != "record.name"} | {
        "resource.tenant"
    }
