"""The way of one batch to its destination: which requests it needs and what became of them. No I/O in here.

The client for threads and the one for tasks share it, and differ only in how they wait.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from connectors.otlp.settings import OtlpConnectionSettings
from telflow.batch import TelemetryBatch
from telflow.codec import Encoding, encode
from telflow.delivery.parcel import split_batch
from telflow.delivery.transport import Answer, Verdict
from telflow.errors import DeliveryError, EncodeError

__all__ = ["Delivered", "Shipment", "UndeliveredError"]


@dataclass(frozen=True, slots=True)
class Delivered:
    """What became of records that were sent; sums of several add up.

    >>> Delivered(accepted=3, requests=1) + Delivered(accepted=1, rejected=2, requests=1)
    Delivered(accepted=4, rejected=2, undelivered=0, requests=2, messages=())

    Attributes:
        accepted: Records the destination has.
        rejected: Records it left out of requests it accepted (OTLP's partial success).
        undelivered: Records of requests it did not accept; none in what `send` returns, which raises for those.
        requests: Requests it accepted.
        messages: What it said with partial successes, each once; may quote data.
    """

    accepted: int = 0
    rejected: int = 0
    undelivered: int = 0
    requests: int = 0
    messages: tuple[str, ...] = ()

    def __add__(self, other: Delivered) -> Delivered:
        return Delivered(
            self.accepted + other.accepted,
            self.rejected + other.rejected,
            self.undelivered + other.undelivered,
            self.requests + other.requests,
            tuple(dict.fromkeys(self.messages + other.messages)),
        )


class UndeliveredError(DeliveryError):
    """A client has given up on a batch, or on a part of it.

    `retryable` is True when the destination may take the rest later: then sending `unsent` again sends nothing twice
    that is known to have arrived.

    Attributes:
        delivered: What became of the batch's records altogether.
        refused: Records that the destination will never take, or that cannot be encoded.
        unsent: Records that it may take later.
        status: Its last answer in a word: ``UNAVAILABLE``, ``HTTP 400``, ``no answer``, ``circuit open``.
        detail: Its own words; they may quote data and are therefore not part of the message.
    """

    def __init__(
        self,
        message: str,
        *,
        delivered: Delivered,
        refused: TelemetryBatch,
        unsent: TelemetryBatch,
        answer: Answer,
    ) -> None:
        super().__init__(message, retryable=unsent.num_rows > 0, retry_after_s=answer.retry_after_s)
        self.delivered = delivered
        self.refused = refused
        self.unsent = unsent
        self.status = answer.status
        self.detail = answer.message


class Shipment:
    """A batch on its way.

    `next_request` is asked for one request after the other, and `settle` told the answer of each. A request that was
    refused for good does not stop the ones after it; one that found nobody well does.
    """

    def __init__(self, batch: TelemetryBatch, settings: OtlpConnectionSettings) -> None:
        self._batch = batch
        self._settings = settings
        self._encoding: Encoding = "json" if settings.protocol == "http/json" else "protobuf"
        self._todo = deque([batch] if batch.num_rows else [])
        self._delivered = Delivered()
        self._refused: list[TelemetryBatch] = []
        self._unsent: list[TelemetryBatch] = []
        self._failure: Answer | None = None

    def next_request(self) -> tuple[TelemetryBatch, bytes] | None:
        """Return the records and the bytes of the next request, or None when there is none left."""
        limit = self._settings.request_bytes
        while self._todo:
            part = self._todo.popleft()
            try:
                body = encode(part, self._encoding)
            except EncodeError as error:
                self.settle(part, Answer(Verdict.REFUSED, "not encodable", str(error)))
                continue
            if len(body) <= limit or part.num_rows == 1:
                # A single record over the limit is sent all the same: the destination may take it.
                return part, body
            self._todo.extendleft(reversed(split_batch(part, len(body), limit)))
        return None

    def settle(self, part: TelemetryBatch, answer: Answer) -> None:
        """Note the final answer to a request."""
        if answer.verdict is Verdict.ACCEPTED:
            rejected = min(answer.rejected, part.num_rows)
            said = (answer.message,) if answer.message else ()
            self._delivered += Delivered(part.num_rows - rejected, rejected, 0, 1, said)
        elif answer.verdict is Verdict.REFUSED:
            self._refused.append(part)
            self._failure = self._failure or answer
        else:
            self._unsent = [part, *self._todo]
            self._todo.clear()
            self._failure = answer

    def result(self) -> Delivered:
        """Return what became of the records.

        Raises:
            UndeliveredError: Not all of them were delivered.
        """
        if self._failure is None:
            return self._delivered
        signal = self._batch.signal
        refused = TelemetryBatch.concat([TelemetryBatch.empty(signal), *self._refused])
        unsent = TelemetryBatch.concat([TelemetryBatch.empty(signal), *self._unsent])
        missing = refused.num_rows + unsent.num_rows
        hint = "the destination may take them later" if unsent.num_rows else "sending them again is no use"
        raise UndeliveredError(
            f"{self._settings.endpoint}: {missing} of {self._batch.num_rows} {signal} records not delivered, "
            f"the last answer was {self._failure.status}; {hint}",
            delivered=self._delivered + Delivered(undelivered=missing),
            refused=refused,
            unsent=unsent,
            answer=self._failure,
        )
