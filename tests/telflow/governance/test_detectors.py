"""Each detector finds what it is for, in the forms it has in telemetry, and leaves what only looks like it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from telflow.governance import DETECTORS, DetectorSettings, Redactor, RedactSettings
from telflow.governance.numbering import CARD_ISSUERS, IBAN_ACCOUNTS, NOT_DOMAINS

_ALL = Redactor(RedactSettings(detectors={name: DetectorSettings() for name in DETECTORS}))
_DEFAULT = Redactor(RedactSettings())


def _jwt(header: Mapping[str, str] | str, *, compact: bool = True) -> str:
    text = header if isinstance(header, str) else json.dumps(header, separators=(",", ":") if compact else None)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode() + ".eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"


_BASIC = base64.b64encode(b"aladdin:open sesame").decode()
_A40 = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
_PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE KEY-----"

POSITIVES = [
    ("email", "jane@example.com", "[EMAIL]"),
    ("email", "Jane.Doe+tag@Mail.Example.CO.UK.", "[EMAIL]."),
    ("email", "<o'neil_1@example.com>", "<[EMAIL]>"),
    ("email", "'jane@example.com'", "'[EMAIL]'"),
    ("email", "/u/jane%40example.com/x", "/u/[EMAIL]/x"),
    ("email", "?to%3Djane%2Bx%40example.com&y", "?to%3D[EMAIL]&y"),
    ("email", r'{"m":"jane\u0040example.com"}', '{"m":"[EMAIL]"}'),
    ("email", "jane&#64;example.com", "[EMAIL]"),
    ("email", "jörg@münchen.de", "[EMAIL]"),
    ("email", "jane@xn--bcher-kva.example", "[EMAIL]"),
    ("email", "jane@example.xn--p1ai", "[EMAIL]"),
    ("email", "1234@163.com", "[EMAIL]"),
    ("email", "jane@example.com.html", "[EMAIL].html"),
    ("email", "jane@example.com-x", "[EMAIL]-x"),
    ("email", "a@b.example@c.example", "[EMAIL]"),
    ("payment_card", "4111111111111111", "[CARD]"),
    ("payment_card", "pan=5500005555555559;", "pan=[CARD];"),
    ("payment_card", "3782 822463 10005", "[CARD]"),
    ("payment_card", "30569309025904", "[CARD]"),
    ("payment_card", "6011-1111-1111-1117", "[CARD]"),
    ("payment_card", "3530111333300000", "[CARD]"),
    ("payment_card", "2223003122003222", "[CARD]"),
    ("payment_card", "6200000000000005", "[CARD]"),
    ("payment_card", "card4111111111111111USD", "card[CARD]USD"),
    ("payment_card", "12 4111 1111 1111 1111 12/29", "12 [CARD] 12/29"),
    ("payment_card", "?pan=%204111111111111111", "?pan=%20[CARD]"),
    ("payment_card", "%3D4111111111111111", "%3D[CARD]"),
    ("payment_card", "no.4111111111111111", "no.[CARD]"),
    ("payment_card", "4111111111111111.0", "[CARD].0"),
    ("iban", "DE89370400440532013000", "[IBAN]"),
    ("iban", "de89370400440532013000", "[IBAN]"),
    ("iban", "GB29 NWBK 6016 1331 9268 19.", "[IBAN]."),
    ("iban", "NO93-8601-1117-947", "[IBAN]"),
    ("iban", "iban%3DFR1420041010050500013M02606&", "iban%3D[IBAN]&"),
    ("iban", "MT84MALT011000012345MTLCAST001S", "[IBAN]"),
    ("ipv4", "from 192.0.2.7:8080, via 10.0.0.1.", "from [IP]:8080, via [IP]."),
    ("ipv6", "[2001:db8::8a2e:370:7334]:443", "[[IP]]:443"),
    ("ipv6", "peer ::ffff:10.1.1.9 gone: fe80::1%eth0", "peer [IP] gone: [IP]%eth0"),
    ("ipv6", "peer:2001:db8::1.", "peer:[IP]."),
    ("jwt", _jwt({"alg": "HS256", "typ": "JWT"}), "[JWT]"),
    ("jwt", "t=" + _jwt({"typ": "JWT", "alg": "none"}, compact=False) + ";", "t=[JWT];"),
    ("jwt", _jwt('{\n  "alg": "RS256"\n}'), "[JWT]"),
    ("jwt", _jwt({"alg": "RSA-OAEP", "enc": "A256GCM"}) + ".YQ.Yg", "[JWT]"),
    ("bearer_token", "Authorization: Bearer mF_9.B5f-4.1JqM", "Authorization: Bearer [TOKEN]"),
    ("bearer_token", "curl -H 'bearer abcdef123456'", "curl -H 'bearer [TOKEN]'"),
    ("basic_credentials", f"Proxy: Basic {_BASIC}", "Proxy: Basic [CREDENTIALS]"),
    ("authorization_header", '"authorization": "Token 0a1b2c3d4e5f"', '"authorization": "Token [CREDENTIALS]"'),
    ("url_password", "postgres://app:s3cret@db/x", "postgres://app:[PASSWORD]@db/x"),
    ("url_password", "amqp://u:p@ss:w@rd@mq:5672/x@y", "amqp://u:[PASSWORD]@mq:5672/x@y"),
    ("private_key", f"key: {_PEM}\nend", "key: [PRIVATE_KEY]\nend"),
    ("private_key", _PEM[:50], "[PRIVATE_KEY]"),
    ("aws_access_key", "id AKIAIOSFODNN7EXAMPLE used", "id [AWS_KEY] used"),
    ("aws_secret_key", f"aws_secret_access_key = {_A40}", "aws_secret_access_key = [AWS_SECRET]"),
    ("aws_secret_key", f'{{"SecretAccessKey": "{_A40}"}}', '{"SecretAccessKey": "[AWS_SECRET]"}'),
    ("aws_session_token", f"AWS_SESSION_TOKEN={'Ab1/' * 30}", "AWS_SESSION_TOKEN=[AWS_TOKEN]"),
    ("google_key", f"key=AIza{'aB3-_' * 7}", "key=[GOOGLE_KEY]"),
    ("google_key", f"ya29.{'aB3-_' * 7}", "[GOOGLE_KEY]"),
    ("azure_storage_key", f"AccountName=a;AccountKey={'aB3/' * 21}aB==;E", "AccountName=a;AccountKey=[AZURE_KEY];E"),
    (
        "azure_signature",
        f"https://x.blob/y?sv=1&sig={'aB3' * 14}%3D&se=1",
        "https://x.blob/y?sv=1&sig=[AZURE_SIGNATURE]&se=1",
    ),
    ("github_token", f"ghp_{'a1B2' * 9}", "[GITHUB_TOKEN]"),
    ("github_token", f"github_pat_{'a1B2_' * 9}", "[GITHUB_TOKEN]"),
    ("gitlab_token", f"glpat-{'a1B2-' * 4}", "[GITLAB_TOKEN]"),
    ("slack_token", "xoxb-123456789012-abcdef", "[SLACK_TOKEN]"),
    (
        "slack_token",
        f"https://hooks.slack.com/services/T0/B0/{'x1' * 12}",
        "https://hooks.slack.com/services/[SLACK_TOKEN]",
    ),
    ("stripe_key", "sk_live_4eC39HqLyjWDarjtT1zdp7dc", "[STRIPE_KEY]"),
    ("stripe_key", f"whsec_{'a1B2' * 8}", "[STRIPE_KEY]"),
    ("registry_token", f"npm_{'a1B2' * 9}", "[REGISTRY_TOKEN]"),
    ("registry_token", f"pypi-AgE{'a1B2_' * 12}", "[REGISTRY_TOKEN]"),
    ("sendgrid_key", f"SG.{'a1B2' * 5}.{'a1B2' * 10}", "[SENDGRID_KEY]"),
    ("ai_key", f"sk-proj-{'a1B2_' * 8}", "[AI_KEY]"),
    ("ai_key", f"sk-{'a1B2' * 8}", "[AI_KEY]"),
]


@pytest.mark.parametrize(("name", "text", "clean"), POSITIVES)
def test_finds(name: str, text: str, clean: str) -> None:
    """The detector by itself finds it, and with all others on nothing of it is left either."""
    settings = {n: DetectorSettings(enabled=n == name) for n in DETECTORS}
    alone = Redactor(RedactSettings(detectors=settings))
    assert alone.replace(text) == clean
    assert {f.detector for f in alone.find(text)} == {name}
    assert name in {f.detector for f in _ALL.find(text)}
    shown = _ALL.replace(text)
    assert shown is not None
    for finding in alone.find(text):
        assert text.encode()[finding.start : finding.end].decode() not in shown


def test_every_detector_has_a_positive() -> None:
    """A detector added without an example here would go untested."""
    assert {name for name, _, _ in POSITIVES} == set(DETECTORS)


NEGATIVES = [
    *("1700000000", "1700000000000", "1700000000000000", "1700000000000000000", "2026-11-21T18:40:03.123456789Z"),
    *("20261121184003123", "2026-11-21 18:40:03 4111", "0.4111111111111111", "1.4532015112830366e-05", "12:34:56.789"),
    *(
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "00f067aa0ba902b7",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ),
    *("0x4111111111111111", "a4111111111111111", "411111111111111", "4111111111111112", "41111111111111111111"),
    *("f47ac10b-5811-4372-8567-0e02b2c3d479", "12345678-1234-1234-1234-123456789012", "507f1f77bcf86cd799439011"),
    *("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
    *(
        "lodash@4.17.21",
        "left-pad@1.0.0-rc.1",
        "pkg@1.2.3-beta.x",
        "icon@2x.png",
        "getty@tty1.service",
        "user@1000.service",
    ),
    *(
        "root@localhost",
        "com.example.Foo@6d06d69c",
        "@media screen",
        "a @ b.com",
        "@example.com",
        "image@sha256:9f86d081884c7d65",
    ),
    *(
        "v1.2.3.4",
        "1.2.3",
        "1.2.3.4.5",
        "256.1.1.1",
        "1.02.3.4",
        "std::vec::Vec",
        "12:30:45",
        "aa:bb:cc:dd:ee:ff",
        "::",
        "a::b",
    ),
    *(
        "DE89370400440532013001",
        "DE8937040044053201300",
        "XX89370400440532013000",
        "GB2 9NWBK",
        "aDE89370400440532013000",
    ),
    *(
        "Bearer token",
        "Bearer of good news for everyone",
        'WWW-Authenticate: Bearer realm="example"',
        "basic information",
    ),
    *("Basic aGVsbG8gd29ybGQ=", "authorization: required", "eyJhbGciOiJ", "eyJub3QiOiJhIGp3dCJ9.eyJh.x", "eyJ.a.b"),
    *(
        "https://example.com:8080/a@b",
        "http://h/?a:b@c",
        "http://user@host/",
        "http://u:@h",
        "//u:p@h",
        "://?u:p@h",
        "https://example.com/",
        "http://[::1]/",
        "AKIA",
        "xAKIAIOSFODNN7EXAMPLEx",
    ),
    *(
        "secret_access_key=short",
        "ghp_short",
        "sk-learn",
        "task-0123456789abcdef0123456789abcdef",
        "sk_live_",
        "SG.a.b",
    ),
    *(
        "-----BEGIN CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----",
        "AIzaShort",
        "xoxo-hugs",
        "?sig=abc",
        "npm_config_registry",
    ),
    *(
        "SELECT * FROM orders WHERE id = 4111 AND total > 99.95",
        "GET /cart/{id}/7747",
        "Mozilla/5.0 (X11; Linux x86_64)",
    ),
    *(
        "41b1e7f0-4111-1111-1111-11111111111a",
        "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "eu-west-1a",
        "ip-10-0-0-1",
        "0123456789" * 12,
    ),
]


@pytest.mark.parametrize("text", NEGATIVES)
def test_leaves_alone(text: str) -> None:
    """Ids, timestamps, versions, hashes, paths and prose, with every detector on."""
    assert _ALL.find(text) == []
    assert _ALL.replace(text) == text


def test_addresses_of_the_internet_are_a_matter_of_policy() -> None:
    """Off unless named in the settings."""
    assert _DEFAULT.find("192.0.2.7 2001:db8::1") == []


def test_random_ids_are_seldom_taken_for_card_numbers() -> None:
    """Of 20 000 made-up ids of the usual kinds hardly any pass: one chance match in thousands, not in tens."""
    import random  # noqa: PLC0415 - only here
    import uuid  # noqa: PLC0415

    chance = random.Random(5)
    ids: list[str] = []
    for _ in range(4000):
        ids.append(str(uuid.UUID(int=chance.getrandbits(128))))
        ids.append(f"{chance.getrandbits(128):032x}")
        ids.append(f"{chance.getrandbits(64):016x}")
        ids.append(str(1.6e18 + chance.randrange(10**17)))
        ids.append(str(chance.random()))
    found = [text for text in ids if _ALL.find(text)]
    assert len(found) <= 2, found


def test_tables_are_well_formed() -> None:
    """Prefixes of a range have one length and ascend, countries are sorted and known once, domains are lower case."""
    assert all(len(a) == len(b) and a <= b and lengths for a, b, lengths in CARD_ISSUERS)
    countries = [country for country, _ in IBAN_ACCOUNTS]
    assert countries == sorted(set(countries))
    assert all(11 <= sum(map(int, re.findall("[0-9]+", structure))) <= 30 for _, structure in IBAN_ACCOUNTS)
    assert all(domain == domain.lower() and domain.isalnum() for domain in NOT_DOMAINS)


def test_the_documentation_names_every_detector() -> None:
    """In the table of docs/redaction.md."""
    page = (Path(__file__).parents[3] / "docs" / "redaction.md").read_text(encoding="utf-8")
    assert [name for name in DETECTORS if f"`{name}`" not in page] == []
