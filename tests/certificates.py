"""Certificates for tests: an authority and what it signs."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

__all__ = ["make_certificates"]


def make_certificates(folder: Path, names: Mapping[str, str | None]) -> None:
    """Write an authority (``ca.pem``) and, for each name, ``name.key`` and ``name.pem``.

    Args:
        folder: Where to.
        names: The host name or address that each certificate is for, as its subject alternative name; None: it has but
            a common name, the key.
    """
    authority = generate_private_key(SECP256R1())
    issuer = _named("ca")
    of_authority = _begun(issuer, authority, issuer).add_extension(x509.BasicConstraints(True, None), critical=True)
    _write(folder / "ca.pem", of_authority.sign(authority, SHA256()))
    for name, host in names.items():
        key = generate_private_key(SECP256R1())
        begun = _begun(_named(name), key, issuer).add_extension(x509.BasicConstraints(False, None), critical=True)
        if host is not None:
            begun = begun.add_extension(x509.SubjectAlternativeName([_alternative(host)]), critical=False)
        _write(folder / f"{name}.pem", begun.sign(authority, SHA256()))
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / f"{name}.key").write_bytes(private)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _begun(subject: x509.Name, key: EllipticCurvePrivateKey, issuer: x509.Name) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
    )


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
