"""What telflow recognises by itself: each detector is data, compiled into the native kernel with the user's own rules.

A detector is either a *shape* that the kernel knows how to validate (addresses, numbers with check digits), or a
*pattern* in the syntax of the `regex` crate, which runs in linear time. The kernel looks for a pattern only where one
of the texts stands that all its matches begin with, so a good pattern starts with three fixed characters or more. When
a pattern has a group, only what the group matched is sensitive: `pin=([0-9]+)` leaves the name of the field standing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["DETECTORS", "Check", "Detector", "Shape"]

Shape = Literal["email", "card", "iban", "ipv4", "ipv6", "url_password", "pattern"]

Check = Literal["", "jwt", "basic", "token", "luhn"]
"""What a match of a pattern must pass besides: `jwt` its header names an algorithm, `basic` it decodes to
`user:password`, `token` it looks like chance rather than like a word, `luhn` its digits have a correct check digit."""


@dataclass(frozen=True, slots=True)
class Detector:
    """One kind of sensitive text.

    Attributes:
        name: As written in settings and counted in `Redaction.counts`.
        label: What stands between the brackets when it is masked.
        about: What it finds, and by which rule.
        shape: How it is found.
        pattern: For the shape `pattern`: a regular expression.
        check: What a match must pass besides.
        is_default: On unless switched off; the others are a matter of policy.
    """

    name: str
    label: str
    about: str
    shape: Shape = "pattern"
    pattern: str = ""
    check: Check = ""
    is_default: bool = True


_ALL = (
    Detector("email", "EMAIL", "E-mail addresses, also with the @ escaped as in URLs and JSON.", "email"),
    Detector(
        "payment_card",
        "CARD",
        "Payment card numbers of a known issuer with a correct check digit (ISO/IEC 7812), in one piece or in groups; "
        "also as integers and doubles.",
        "card",
    ),
    Detector("iban", "IBAN", "Bank account numbers with correct structure and check digits (ISO 13616).", "iban"),
    Detector("ipv4", "IP", "IPv4 addresses.", "ipv4", is_default=False),
    Detector("ipv6", "IP", "IPv6 addresses (RFC 4291).", "ipv6", is_default=False),
    Detector(
        "jwt",
        "JWT",
        "JSON web tokens, signed or encrypted (RFC 7519), by their decoded header.",
        pattern=r"(?:eyJ|eyA|ewo|ewk|ew0)[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*){1,3}",
        check="jwt",
    ),
    Detector(
        "bearer_token",
        "TOKEN",
        "What follows `Bearer` (RFC 6750).",
        pattern=r"(?:[Bb]earer|BEARER)(?:\s|\+|%20)+([A-Za-z0-9._~+/=-]{12,})",
        check="token",
    ),
    Detector(
        "basic_credentials",
        "CREDENTIALS",
        "What follows `Basic` and decodes to user and password (RFC 7617).",
        pattern=r"(?:[Bb]asic|BASIC)(?:\s|\+|%20)+([A-Za-z0-9+/_-]{4,}={0,2})",
        check="basic",
    ),
    Detector(
        "authorization_header",
        "CREDENTIALS",
        "The credentials of an `Authorization:` header of any scheme (RFC 9110, 11.6.2).",
        pattern=r"""(?:[Aa]uthorization|AUTHORIZATION)["']?\s*[:=]\s*["']?(?:[A-Za-z][A-Za-z0-9_-]*\s+)?([^\s"',;]{8,})""",
        check="token",
    ),
    Detector(
        "url_password",
        "PASSWORD",
        "The password in `scheme://user:password@host` (RFC 3986, 3.2.1).",
        "url_password",
    ),
    Detector(
        "private_key",
        "PRIVATE_KEY",
        "Private keys in PEM or PGP armour, to their end or that of the text.",
        pattern=r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----[\s\S]*?"
        r"(?:-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----|\z)",
    ),
    Detector(
        "aws_access_key",
        "AWS_KEY",
        "AWS access key ids.",
        pattern=r"(?-u:\b)(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?-u:\b)",
    ),
    Detector(
        "aws_secret_key",
        "AWS_SECRET",
        "AWS secret access keys, by the name in front of them.",
        pattern=r"""(?:secret_access_key|SECRET_ACCESS_KEY|[sS]ecretAccessKey)["']?[\s:=>]+["']?"""
        r"([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|\z)",
    ),
    Detector(
        "aws_session_token",
        "AWS_TOKEN",
        "AWS session tokens, by the name in front of them.",
        pattern=r"""(?:session_token|SESSION_TOKEN|[sS]essionToken)["']?[\s:=>]+["']?([A-Za-z0-9/+=]{100,})""",
    ),
    Detector(
        "google_key",
        "GOOGLE_KEY",
        "Google API keys, OAuth access tokens and client secrets.",
        pattern=r"AIza[0-9A-Za-z_-]{35}|ya29\.[0-9A-Za-z_-]{20,}|GOCSPX-[0-9A-Za-z_-]{28}",
    ),
    Detector(
        "azure_storage_key",
        "AZURE_KEY",
        "Account and access keys in Azure connection strings.",
        pattern=r"(?:AccountKey|SharedAccessKey)=([A-Za-z0-9+/]{40,90}={0,2})",
    ),
    Detector(
        "azure_signature",
        "AZURE_SIGNATURE",
        "Signatures of Azure shared access URLs.",
        pattern=r"[?&;]sig=([A-Za-z0-9%/+]{40,}={0,2})",
    ),
    Detector(
        "github_token",
        "GITHUB_TOKEN",
        "GitHub tokens of every kind.",
        pattern=r"gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}",
    ),
    Detector(
        "gitlab_token",
        "GITLAB_TOKEN",
        "GitLab tokens of every kind.",
        pattern=r"gl(?:pat|dt|rt|ptt|cbt|ft|soat|agent|imt)-[A-Za-z0-9_-]{20,}",
    ),
    Detector(
        "slack_token",
        "SLACK_TOKEN",
        "Slack tokens and webhook addresses.",
        pattern=r"xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{10,}"
        r"|hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9/+_-]{20,})",
    ),
    Detector(
        "stripe_key",
        "STRIPE_KEY",
        "Stripe secret and restricted keys, webhook secrets.",
        pattern=r"[rs]k_(?:live|test)_[A-Za-z0-9]{10,}|whsec_[A-Za-z0-9+/=]{32,}",
    ),
    Detector(
        "registry_token",
        "REGISTRY_TOKEN",
        "Tokens of the npm and PyPI package registries.",
        pattern=r"npm_[A-Za-z0-9]{36}|pypi-AgE[A-Za-z0-9_-]{50,}",
    ),
    Detector(
        "sendgrid_key", "SENDGRID_KEY", "SendGrid keys.", pattern=r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64}"
    ),
    Detector(
        "ai_key",
        "AI_KEY",
        "Keys of OpenAI and Anthropic.",
        pattern=r"(?-u:\b)sk-(?:(?:proj|svcacct|admin|ant)-[A-Za-z0-9_-]{20,}|[A-Za-z0-9]{32,})",
    ),
)

DETECTORS: dict[str, Detector] = {detector.name: detector for detector in _ALL}
"""All detectors by name."""
