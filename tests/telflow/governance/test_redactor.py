"""Redactor: actions, rules by attribute name and pattern, places, the secret of the hash."""

from __future__ import annotations

import hashlib
import hmac
import threading
from pathlib import Path
from typing import Any

import pytest

from telflow.batch import TelemetryBatch
from telflow.errors import ConfigError
from telflow.governance import DEFAULT_KEYS, Redactor, RedactSettings
from telflow.schema import Signal
from tests.batches import key_value
from tests.canaries import request_with
from tests.oracle import batch_from_message
from tests.same import assert_same_batch

_HASH_KEY = "0123456789abcdef"


def _redactor(**options: Any) -> Redactor:
    settings = RedactSettings.model_validate({"hash_key": {"env": "KEY"}, **options})
    return Redactor(settings, environ={"KEY": _HASH_KEY})


def _hash(text: str, digits: int = 32) -> str:
    return hmac.new(_HASH_KEY.encode(), text.encode(), hashlib.sha256).hexdigest()[:digits]


def _batch(*attributes: tuple[str, Any], resource: tuple[tuple[str, Any], ...] = ()) -> TelemetryBatch:
    request = request_with(Signal.TRACES, lambda _r, _c: None, None)
    span = request.resource_spans[0].scope_spans[0].spans[1]
    span.attributes.extend(key_value(key, value) for key, value in attributes)
    request.resource_spans[0].resource.attributes.extend(key_value(key, value) for key, value in resource)
    return batch_from_message(request, Signal.TRACES)


def _check(
    redactor: Redactor, before: list[tuple[str, Any]], after: list[tuple[str, Any]]
) -> dict[tuple[str, str], int]:
    done = redactor.redact(_batch(*before))
    assert done.failed is None
    assert_same_batch(done.batch, _batch(*after))
    return dict(done.counts)


# Actions


def test_the_hash_is_keyed_and_stable() -> None:
    """HMAC-SHA-256 of the value in one spelling, so that hashes of the same thing are equal wherever it stood."""
    redactor = _redactor(action="hash")
    card, mail = _hash("4111111111111111"), _hash("jane@example.com")
    assert redactor.replace("Jane@Example.com, jane%40example.com") == f"{mail}, {mail}"
    assert redactor.replace("4111 1111 1111 1111 / 4111111111111111") == f"{card} / {card}"
    assert redactor.replace("de89370400440532013000") == _hash("DE89370400440532013000")
    _check(redactor, [("a", 4111111111111111), ("b", 4111111111111111.0)], [("a", card), ("b", card)])


def test_digits_of_the_hash_are_a_setting() -> None:
    """From 8 to 64."""
    for digits in (8, 64):
        assert _redactor(action="hash", hash_digits=digits).replace("jane@example.com") == _hash(
            "jane@example.com", digits
        )


def test_a_mask_may_keep_the_last_characters() -> None:
    """Not of a text of which they would be half or more."""
    options = {"payment_card": {"keep_last": 4}, "email": {"keep_last": 7, "label": "MAIL"}}
    redactor = _redactor(detectors=options, patterns=[{"name": "pin", "pattern": "pin=([0-9]+)", "keep_last": 2}])
    assert redactor.replace("4111 1111 1111 1111") == "[CARD:1111]"
    assert redactor.replace("jane@example.com a@b.example") == "[MAIL:ple.com] [MAIL]"
    assert redactor.replace("pin=1234 pin=12345 pin=é") == "pin=[PIN] pin=[PIN:45] pin=é"


def test_each_detector_may_have_its_own_action() -> None:
    """A text in which one finding is to be deleted is deleted whole."""
    redactor = _redactor(detectors={"email": {"action": "delete"}, "jwt": {"enabled": False}})
    assert redactor.replace("card 4111111111111111") == "card [CARD]"
    assert redactor.replace("jane@example.com 4111111111111111") is None


def test_overlapping_findings_leave_nothing_standing() -> None:
    """Together they become one, named after the first."""
    assert _redactor().replace("ftp://u:pw@files.example.com/x") == "ftp://u:[EMAIL]/x"
    rules = [{"name": "first", "pattern": "abc.def"}, {"name": "second", "pattern": "def.ghi"}]
    assert _redactor(patterns=rules).replace("x abc def ghi x") == "x [FIRST] x"


# Patterns of one's own


@pytest.mark.parametrize(
    ("rule", "text", "clean"),
    [
        ({"pattern": "CUST-[0-9]{4}"}, "see CUST-1234, CUST-12345", "see [MINE], [MINE]5"),
        ({"pattern": "[a-z]{3}[0-9]{3}"}, "abc123 abc12", "[MINE] abc12"),
        ({"pattern": "[0-9]{3}", "keywords": ["Ref"]}, "REF 123 456; ", "REF [MINE] [MINE]; "),
        ({"pattern": "[0-9]{3}", "keywords": ["Ref"]}, "no 123", "no 123"),
        ({"pattern": r"(?i)name:\s*(\w+)"}, "NAME: Zoë, name:Al", "NAME: [MINE], name:[MINE]"),
        ({"pattern": r"\b[0-9]{9}\b", "check": "luhn"}, "123456782 123456789", "[MINE] 123456789"),
        ({"pattern": r"^one\w*"}, "ones one", "[MINE] one"),
        ({"pattern": "q+|qqb"}, "qqqb", "[MINE]b"),
        ({"pattern": "☃+", "label": "SNOW"}, "a☃☃b", "a[SNOW]b"),
        ({"pattern": "(?:k1=(x)|k2=(y))"}, "k1=x k2=y", "k1=[MINE] k2=[MINE]"),
        ({"pattern": "(?:ab|abcd|abc)e"}, "abe abce abcde", "[MINE] [MINE] [MINE]"),
    ],
)
def test_patterns(rule: dict[str, Any], text: str, clean: str) -> None:
    """With fixed beginnings, without, with keywords, groups and checks; per value and in a batch."""
    redactor = _redactor(patterns=[{"name": "mine", **rule}], places=["record.attributes.value"])
    assert redactor.replace(text) == clean
    _check(redactor, [("a", "x"), ("b", text), ("c", [text])], [("a", "x"), ("b", clean), ("c", [clean])])


def test_patterns_apply_to_numbers() -> None:
    """To their decimal form, unless they can only match other characters."""
    redactor = _redactor(
        patterns=[{"name": "insured", "pattern": r"\b[0-9]{9}\b"}, {"name": "ref", "pattern": "REF[0-9]"}]
    )
    counts = _check(
        redactor,
        [("a", 123456789), ("b", 1234567890), ("c", -123456789), ("d", 123456789.0), ("e", [123456789, 1.5])],
        [("a", "[INSURED]"), ("b", 1234567890), ("c", "[INSURED]"), ("d", "[INSURED]"), ("e", ["[INSURED]", 1.5])],
    )
    assert counts == {("insured", "record.attributes.value"): 4}


def test_more_patterns_than_a_vectorised_search_takes() -> None:
    """With hundreds of rules each still finds its own."""
    rules = [{"name": f"r{i}", "pattern": f"{chr(97 + i % 26)}{i:03d}-[0-9]+"} for i in range(300)]
    redactor = _redactor(patterns=rules)
    text = " ".join(f"{chr(97 + i % 26)}{i:03d}-{i}" for i in range(300))
    assert redactor.replace(text) == " ".join(f"[R{i}]" for i in range(300))


@pytest.mark.parametrize(
    ("pattern", "said"),
    [("(", "mine: "), ("a*", "matches the empty text"), (r"(?<=a)b", "look-around"), ("(?:a{1000}){1000}", "mine: ")],
)
def test_a_pattern_that_cannot_be_used_is_refused(pattern: str, said: str) -> None:
    """When the redactor is made, naming the rule."""
    with pytest.raises(ConfigError, match="mine") as caught:
        _redactor(patterns=[{"name": "mine", "pattern": pattern}])
    assert said in str(caught.value)


# Rules by attribute name


def test_rules_by_name() -> None:
    """Any kind of value is masked, hashed, deleted or kept; case does not count; the first rule decides."""
    redactor = _redactor(
        keys=[
            {"key": "user.id", "action": "hash"},
            {"key": "*.debug", "action": "delete"},
            {"key": "support.*", "action": "keep"},
            {"key": "x?", "label": "GONE"},
            {"key": "user.*"},
        ]
    )
    _check(
        redactor,
        [
            *(
                ("User.ID", "u1"),
                ("app.debug", {"a": 1}),
                ("support.mail", "jane@example.com"),
                ("support.list", ["a@b.example"]),
            ),
            *(
                ("x1", 5),
                ("x2", 1.5),
                ("x3", True),
                ("x4", b"b"),
                ("x5", [1]),
                ("x6", {"a": 1}),
                ("x7", None),
                ("x8", ""),
            ),
            *(
                ("user.name", "Jane"),
                ("xyz", "a"),
                ("user.id", 7),
                ("user.id", True),
                ("user.id", 1.5),
                ("user.id", b"\xff"),
            ),
        ],
        [
            *(("User.ID", _hash("u1")), ("support.mail", "jane@example.com"), ("support.list", ["a@b.example"])),
            *(
                ("x1", "[GONE]"),
                ("x2", "[GONE]"),
                ("x3", "[GONE]"),
                ("x4", "[GONE]"),
                ("x5", "[GONE]"),
                ("x6", "[GONE]"),
            ),
            *(("x7", None), ("x8", "[GONE]"), ("user.name", "[REDACTED]"), ("xyz", "a")),
            *(("user.id", _hash("7")), ("user.id", _hash("true")), ("user.id", _hash("1.5"))),
            ("user.id", hmac.new(_HASH_KEY.encode(), b"\xff", hashlib.sha256).hexdigest()[:32]),
        ],
    )


def test_rules_by_name_inside_maps() -> None:
    """By the entry's name and by its path."""
    redactor = _redactor(
        keys=[
            {"key": "a.b.secret_id", "action": "hash"},
            {"key": "drop", "action": "delete"},
            {"key": "a.free", "action": "keep"},
        ]
    )
    mail = "jane@example.com"
    _check(
        redactor,
        [
            ("a", {"b": {"secret_id": 7, "password": ["x"]}, "drop": 1, "free": {"m": mail}, "m": mail}),
            ("other", [{"drop": 1.5, "secret_id": 7, "authorization": None}]),
            ("flags", {"password": False, "cookie": 1.5, "passwd": b"\xff"}),
        ],
        [
            ("a", {"b": {"secret_id": _hash("7"), "password": "[REDACTED]"}, "free": {"m": mail}, "m": "[EMAIL]"}),
            ("other", [{"secret_id": 7, "authorization": None}]),
            ("flags", {"password": "[REDACTED]", "cookie": "[REDACTED]", "passwd": "[REDACTED]"}),
        ],
    )


@pytest.mark.parametrize(
    "key", ["password", "db.password", "HTTP.request.header.Authorization", "app_api_key", "set-cookie"]
)
def test_names_of_secrets_are_masked_by_default(key: str) -> None:
    """Unless the default rules are switched off; names that only contain such a word are left alone."""
    _check(_redactor(), [(key, "x"), ("token.count", 5)], [(key, "[REDACTED]"), ("token.count", 5)])
    _check(_redactor(default_keys=False), [(key, "x")], [(key, "x")])
    assert len({rule.key for rule in DEFAULT_KEYS}) == len(DEFAULT_KEYS)


def test_a_key_rule_says_where_and_how_often() -> None:
    """Counted under its glob."""
    counts = _check(
        _redactor(keys=[{"key": "u*"}]), [("u1", 1), ("u2", {"u3": 2})], [("u1", "[REDACTED]"), ("u2", "[REDACTED]")]
    )
    assert counts == {("key u*", "record.attributes.value"): 2}


# Places


def test_only_the_chosen_places_are_searched() -> None:
    """Keys, values, other levels: each by itself."""
    batch = _batch(("jane@example.com", "jane@example.com"), resource=(("m", "jane@example.com"),))
    for place in ("record.attributes.key", "record.attributes.value", "resource.attributes.value"):
        done = _redactor(places=[place]).redact(batch)
        assert dict(done.counts) == {("email", place): 1}
    assert _redactor(places=["scope.*"]).redact(batch).batch is batch


def test_the_tenant_is_never_changed() -> None:
    """It is telflow's own mark, and routing depends on it."""
    request = request_with(Signal.TRACES, lambda _r, _c: None, None)
    batch = batch_from_message(request, Signal.TRACES, tenant="jane@example.com")
    assert _redactor(action="delete").redact(batch).batch is batch


# The secret


def test_the_secret_comes_from_a_file(tmp_path: Path) -> None:
    """White space around it does not count."""
    path = tmp_path / "key"
    path.write_text(f"  {_HASH_KEY}\n")
    settings = RedactSettings.model_validate({"action": "hash", "hash_key": {"file": str(path)}})
    assert Redactor(settings).replace("jane@example.com") == _hash("jane@example.com")


@pytest.mark.parametrize("source", [{"env": "NONE"}, {"env": "SHORT"}, {"file": "/no/such/file"}])
def test_a_missing_or_short_secret_is_refused(source: dict[str, str]) -> None:
    """Without quoting what it is."""
    with pytest.raises(ConfigError, match=r"hash_key: (environment|file)") as caught:
        Redactor(RedactSettings.model_validate({"hash_key": source}), environ={"SHORT": "sesame"})
    assert "sesame" not in str(caught.value)


def test_many_threads_share_one_redactor() -> None:
    """Each gets the same result as alone."""
    redactor = _redactor()
    batch = _batch(*((f"key{i}", f"user{i}@example.com") for i in range(50)))
    expected = redactor.redact(batch).batch
    results: list[TelemetryBatch] = []

    def work() -> None:
        results.extend(redactor.redact(batch).batch for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 40
    for result in results:
        assert result.records.equals(expected.records)


# Texts made to take long


@pytest.mark.parametrize(
    "text",
    [
        "eyJ" * 500_000,
        "eyJ" * 500_000 + ".a.b",
        "1" * 1_500_000,
        "1 " * 700_000,
        "4111 " * 300_000,
        "%40" * 500_000,
        "a%40" * 300_000,
        "a@" * 700_000,
        "://u:" * 300_000 + "@",
        "://u:p" + "@" * 1_000_000,
        "-----BEGIN PRIVATE KEY-----" * 50_000,
        "bearer " * 200_000,
        "DE89" * 300_000,
        "a." * 700_000 + "@" + "b." * 700_000,
        "::" * 700_000,
        "1." * 700_000,
    ],
    ids=lambda text: f"{text[:12]}x{len(text)}",
)
def test_time_does_not_grow_with_the_square_of_the_text(text: str) -> None:
    """Megabytes made to be searched again and again; quadratic, each would run into the timeout."""
    redactor = _redactor(
        detectors={"ipv4": {}, "ipv6": {}}, patterns=[{"name": "n", "pattern": "[0-9]+", "check": "luhn"}]
    )
    redactor.replace(text)


def test_a_search_cut_short_fails_closed() -> None:
    """After hundreds of failures in one value what looks like a token counts as one; another value is judged anew."""
    fake, real = "eyJhIjoiYiJ9.eyJ.c", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc"
    cut = _redactor().replace(f"{fake} " * 300 + real)
    assert cut is not None
    assert cut.endswith("[JWT] [JWT]")
    assert _redactor().replace(f"{fake} " * 30 + real) == f"{fake} " * 30 + "[JWT]"
    luhn = _redactor(patterns=[{"name": "n", "pattern": "(?:A)?[0-9]{9}", "check": "luhn"}], detectors={})
    assert luhn.replace("123456789 " * 300) == "123456789 " * 64 + "[N] " * 236
