"""What source and sink share: the client library, which is optional, its options, and what its errors mean."""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from connectors.kafka.settings import KafkaClientSettings
from telflow.errors import ConfigError

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

__all__ = ["ErrorLog", "client_options", "load_library"]

_LOG = logging.getLogger(__name__)
_REPEAT_S = 60.0


def load_library() -> ModuleType:
    """Return `confluent_kafka`.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return importlib.import_module("confluent_kafka")
    except ImportError:
        raise ConfigError(
            "kafka: expected the package confluent-kafka, which is not installed; hint: pip install 'telflow[kafka]'"
        ) from None


def client_options(settings: KafkaClientSettings, errors: ErrorLog) -> dict[str, Any]:
    """Return the options of librdkafka that every client has.

    >>> client_options(KafkaClientSettings(brokers=("a:9092", "b:9092")), ErrorLog("kafka"))["bootstrap.servers"]
    'a:9092,b:9092'
    """
    secure = settings.tls is not None
    options: dict[str, Any] = {
        "bootstrap.servers": ",".join(settings.brokers),
        "client.id": settings.client_id,
        "error_cb": errors,
        "logger": errors.library,
        "socket.keepalive.enable": True,
        # The defaults let a client that lost its brokers come back within 10 s; sooner costs next to nothing.
        "reconnect.backoff.max.ms": 2000,
    }
    if settings.tls is not None:
        files = {"ca": settings.tls.ca_file, "certificate": settings.tls.cert_file, "key": settings.tls.key_file}
        options |= {f"ssl.{name}.location": str(file) for name, file in files.items() if file is not None}
        if settings.tls.key_password is not None:
            options["ssl.key.password"] = settings.tls.key_password.get_secret_value()
    if settings.sasl is not None:
        options["sasl.mechanism"] = settings.sasl.mechanism
        if settings.sasl.username:
            options["sasl.username"] = settings.sasl.username
            options["sasl.password"] = settings.sasl.password.get_secret_value()
        options["security.protocol"] = "sasl_ssl" if secure else "sasl_plaintext"
    elif secure:
        options["security.protocol"] = "ssl"
    return options | dict(settings.librdkafka)


class ErrorLog:
    """Says what the library reports, each kind once a minute, for it repeats itself with every attempt.

    >>> errors = ErrorLog("kafka", now_s=lambda: 0.0)
    >>> errors.said("_TRANSPORT"), errors.said("_TRANSPORT")
    (False, True)
    """

    def __init__(self, component: str, *, now_s: Callable[[], float] = time.monotonic) -> None:
        """Begin.

        Args:
            component: Name to say it under.
            now_s: A monotonic clock.
        """
        self._component = component
        self._now_s = now_s
        self._said_s: dict[str, float] = {}
        self.library = logging.getLogger(f"{__name__}.librdkafka")
        self.library.addHandler(logging.NullHandler())
        self.library.propagate = False  # what matters of it comes through `error_cb`, in one line instead of five

    def __call__(self, error: KafkaError) -> None:
        """Report an error of the client as a whole; it goes on trying by itself."""
        if not self.said(error.name()):
            _LOG.warning("%s: %s: %s", self._component, error.name(), error.str())

    def said(self, kind: str) -> bool:
        """Return whether `kind` was reported within the last minute, and take it as reported now if it was not."""
        now_s = self._now_s()
        if now_s - self._said_s.get(kind, -_REPEAT_S) < _REPEAT_S:
            return True
        self._said_s[kind] = now_s
        return False
