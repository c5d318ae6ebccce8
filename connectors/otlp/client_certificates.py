"""Which clients may send, by the names in their certificates."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from connectors.otlp.protocol import Refusal
from connectors.otlp.settings import TlsServerSettings

__all__ = ["ClientNames"]


class ClientNames:
    """The names that `TlsServerSettings.client_names` lets in.

    >>> names = ClientNames(["*.shop.internal"])
    >>> names.check(["cart.shop.internal"])
    >>> names.check(["somebody.else"])
    Traceback (most recent call last):
    connectors.otlp.protocol.Refusal: the client's certificate names nobody who may send here
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._pattern = re.compile("|".join(re.escape(p).replace(r"\*", ".*") for p in patterns), re.DOTALL)

    @classmethod
    def of(cls, tls: TlsServerSettings | None) -> ClientNames | None:
        """Return the check that the settings ask for; None when they ask for none."""
        return cls(tls.client_names) if tls is not None and tls.client_names else None

    def check(self, names: Iterable[str]) -> None:
        """Let a client of these names pass.

        Raises:
            Refusal: It may not.
        """
        if not any(self._pattern.fullmatch(name) for name in names):
            raise Refusal.forbidden("the client's certificate names nobody who may send here")

    def check_grpc(self, auth: Mapping[str, Any]) -> None:
        """Let a client pass, by gRPC's authentication context: names of properties, and lists of their values.

        Raises:
            Refusal: It may not.
        """
        found = auth.get("x509_subject_alternative_name") or auth.get("x509_common_name") or ()
        self.check(name.decode("utf-8", "replace") for name in found)

    def check_http(self, certificate: Mapping[str, Any]) -> None:
        """Let a client pass, by its certificate as `ssl.SSLSocket.getpeercert` returns it.

        Raises:
            Refusal: It may not.
        """
        names = [name for _, name in certificate.get("subjectAltName", ())]
        if not names:
            subject = certificate.get("subject", ())
            names = [value for part in subject for key, value in part if key == "commonName"]
        self.check(names)
