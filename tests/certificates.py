"""Certificates for tests: an authority and what it signs."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

__all__ = ["make_certificates"]


def make_certificates(folder: Path, names: Mapping[str, str]) -> None:
    """Write an authority (``ca.pem``) and, for each name, ``name.key`` and ``name.pem``.

    Args:
        folder: Where to.
        names: The line of X.509 extensions of each certificate, such as ``subjectAltName=IP:127.0.0.1``.
    """
    _openssl(folder, "ecparam -name prime256v1 -out ec.txt")
    _openssl(folder, "req -x509 -newkey ec:ec.txt -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.pem")
    for name, extensions in names.items():
        _openssl(folder, f"req -newkey ec:ec.txt -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr")
        (folder / "extensions.txt").write_text(f"{extensions}\n")
        sign = f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2"
        _openssl(folder, f"{sign} -extfile extensions.txt -out {name}.pem")


def _openssl(folder: Path, command: str) -> None:
    subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
