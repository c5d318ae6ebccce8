"""Requests of a sending queue, made remote write on their way: one after the other, over one kept connection."""

from __future__ import annotations

import concurrent.futures
import logging
import ssl
import time
from collections.abc import Mapping, Sequence

import aiohttp
import pyarrow as pa

from connectors.otlp.answer import parse_retry_after
from connectors.otlp.loop_thread import LoopThread
from connectors.prometheus.remote_write import Request, Translator
from connectors.prometheus.settings import PrometheusExporterSettings
from telflow.accounting import split_by_tenant
from telflow.batch import TelemetryBatch
from telflow.codec import decode
from telflow.delivery.transport import Answer, Verdict
from telflow.errors import ConfigError
from telflow.schema import Signal

__all__ = ["PrometheusTransport", "classify"]

_LOG = logging.getLogger(__name__)
_LONGEST_MESSAGE = 500
_MOST_PARTS = 64
"""Requests that one refused request is cut into at most, to find the samples that were refused."""
_OWNER = "tenant="
_HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
    "User-Agent": "telflow",
}
_SERVER_ERROR = 500
_TOO_MANY = 429


class PrometheusTransport:
    """A `telflow.delivery.Router` with a route for each tenant, which a request's bytes do not tell."""

    well = False
    """There is one destination: a failure is one of it."""

    def __init__(self, settings: PrometheusExporterSettings) -> None:
        """Prepare the connection; it is made with the first request.

        Raises:
            ConfigError: A certificate cannot be read.
        """
        self._settings = settings
        self._translator = Translator(settings, target_info=settings.target_info)
        self._snappy = pa.Codec("snappy")
        self._tls = _ssl_context(settings)
        self._loop = LoopThread("prometheus-client")
        self._session = self._loop.run(self._open())

    def split(self, batch: TelemetryBatch) -> Sequence[tuple[str, TelemetryBatch]]:
        """See `Router.split`."""
        return [(_OWNER + owner, part) for owner, part in split_by_tenant(batch)]

    def leads(self, route: str) -> bool:
        """See `Router.leads`; what comes back from the disk has no route yet."""
        return route.startswith(_OWNER)

    def send_to(self, route: str, signal: Signal, body: bytes) -> Answer:
        """See `Router.send_to`."""
        tenant = route.removeprefix(_OWNER) or None
        batch = decode(body, signal, tenant=tenant)
        request = self._translator.request(batch)
        answer = self._post(request.body, tenant)
        if answer.verdict is Verdict.REFUSED and batch.num_rows > 1:
            answer = self._in_parts(batch, tenant, answer)
        if answer.verdict is not Verdict.ACCEPTED:
            if request.info is not None:
                self._translator.forget_info()
            return answer
        self._tell(request, tenant)
        if request.overwritten:
            _LOG.warning(
                "%s: %d points of series and times that others came for, too",
                self._settings.endpoint,
                request.overwritten,
            )
        return Answer(answer.verdict, answer.status, answer.message, answer.rejected + request.overwritten)

    def close(self) -> None:
        """See `Router.close`."""
        self._loop.run(self._session.close())
        self._loop.stop()

    def _tell(self, request: Request, tenant: str | None) -> None:
        """Send what is known of targets and families by itself: that it is refused must not cost the metrics."""
        if request.info is None:
            return
        answer = self._post(request.info, tenant)
        if answer.verdict is Verdict.RETRYABLE:
            self._translator.forget_info()
        elif answer.verdict is Verdict.REFUSED:
            _LOG.info("%s: target_info was not taken: %s", self._settings.endpoint, answer.status)

    def _in_parts(self, batch: TelemetryBatch, tenant: str | None, refused: Answer) -> Answer:
        """Send a refused request again in halves, and those in halves: one bad sample makes a receiver refuse all.

        Samples that arrived do so again without harm. What is refused by itself in the end is rejected; when everything
        is, or the parts become too many, the request is refused as a whole.
        """
        half = batch.num_rows // 2
        todo = [batch.slice(half), batch.slice(0, half)]
        rejected = 0
        for _ in range(_MOST_PARTS):
            if not todo:
                break
            part = todo.pop()
            answer = self._post(self._translator.request(part).body, tenant)
            if answer.verdict is Verdict.RETRYABLE:
                return answer
            if answer.verdict is Verdict.REFUSED:
                if part.num_rows == 1:
                    rejected += 1
                else:
                    half = part.num_rows // 2
                    todo += [part.slice(half), part.slice(0, half)]
        rejected += sum(part.num_rows for part in todo)
        if rejected == batch.num_rows:
            return refused
        return Answer(Verdict.ACCEPTED, "HTTP 200", refused.message, rejected)

    def _post(self, body: bytes, tenant: str | None) -> Answer:
        if not body:
            return Answer(Verdict.ACCEPTED, "nothing to send")
        compressed: bytes = self._snappy.compress(body, asbytes=True)
        try:
            return self._loop.run(self._send(compressed, tenant))
        except (concurrent.futures.CancelledError, RuntimeError):
            return Answer(Verdict.RETRYABLE, "no answer", "the connection was closed on this side")

    async def _open(self) -> aiohttp.ClientSession:
        secrets = {name: value.get_secret_value() for name, value in self._settings.headers.items()}
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1, ssl=self._tls or True),
            timeout=aiohttp.ClientTimeout(total=self._settings.timeout.total_seconds()),
            headers=_HEADERS | secrets,
        )

    async def _send(self, body: bytes, tenant: str | None) -> Answer:
        settings = self._settings
        headers = {settings.tenant_header: tenant} if settings.tenant_header and tenant else None
        name = settings.tls.server_name if settings.tls else None
        try:
            async with self._session.post(
                settings.endpoint, data=body, headers=headers, allow_redirects=False, server_hostname=name
            ) as response:
                said = (await response.content.read(_LONGEST_MESSAGE)).decode("utf-8", "replace").strip()
                return classify(response.status, response.headers, said)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            return Answer(Verdict.RETRYABLE, "no answer", type(error).__name__)


def classify(http_status: int, headers: Mapping[str, str], message: str = "") -> Answer:
    """Judge an answer (Prometheus remote write 1.0, "Retries & Backoff"): 5xx and 429 are repeated, other 4xx not.

    >>> classify(204, {}).verdict, classify(400, {}, "out of order sample").verdict
    (<Verdict.ACCEPTED: 'accepted'>, <Verdict.REFUSED: 'refused'>)
    >>> classify(429, {"Retry-After": "3"}).retry_after_s
    3.0
    """
    status = f"HTTP {http_status}"
    if 200 <= http_status < 300:  # noqa: PLR2004 - the class of success
        return Answer(Verdict.ACCEPTED, status)
    retryable = http_status >= _SERVER_ERROR or http_status == _TOO_MANY
    verdict = Verdict.RETRYABLE if retryable else Verdict.REFUSED
    wait = headers.get("Retry-After")
    return Answer(
        verdict, status, message, retry_after_s=None if wait is None else parse_retry_after(wait, time.time())
    )


def _ssl_context(settings: PrometheusExporterSettings) -> ssl.SSLContext | None:
    tls = settings.tls
    if tls is None:
        return None
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
        if tls.cert_file is not None:
            context.load_cert_chain(tls.cert_file, tls.key_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"tls: cannot use the certificates: {error}") from None
    return context
