"""Partial success: takes a request but for its records over a size, and tells the sender how many these were."""

from __future__ import annotations

import dataclasses

from google.protobuf import json_format
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

from connectors.otlp.protocol import ExportHandler, ExportRequest, Refusal, resolve_tenant
from telflow.accounting import LEDGER, Ledger, Outcome
from telflow.codec import Encoding
from telflow.errors import DecodeError
from telflow.schema import Signal
from telflow.screening import screen

__all__ = ["RecordLimit", "partial_success"]


def partial_success(signal: Signal, rejected: int, message: str, encoding: Encoding) -> bytes:
    """Write an Export*ServiceResponse with a partial success (OTLP specification, "Partial Success").

    Args:
        signal: What the request carried.
        rejected: Records that were not taken; 0 makes it a warning.
        message: Why, for the sender's developer.
        encoding: That of the request.

    >>> partial_success(Signal.LOGS, 2, "too large", "json")
    b'{"partialSuccess": {"rejectedLogRecords": "2", "errorMessage": "too large"}}'
    """
    response: Message
    if signal is Signal.TRACES:
        in_part = traces.ExportTracePartialSuccess(rejected_spans=rejected, error_message=message)
        response = traces.ExportTraceServiceResponse(partial_success=in_part)
    elif signal is Signal.METRICS:
        of_points = metrics.ExportMetricsPartialSuccess(rejected_data_points=rejected, error_message=message)
        response = metrics.ExportMetricsServiceResponse(partial_success=of_points)
    else:
        of_logs = logs.ExportLogsPartialSuccess(rejected_log_records=rejected, error_message=message)
        response = logs.ExportLogsServiceResponse(partial_success=of_logs)
    if encoding == "json":
        return json_format.MessageToJson(response, indent=None).encode()
    return response.SerializeToString()


class RecordLimit:
    """An `ExportHandler` before another one; requests no larger than a record may be pass it at once."""

    def __init__(
        self,
        handler: ExportHandler,
        max_record_bytes: int,
        *,
        tenant: str | None = None,
        component: str = "otlp",
        ledger: Ledger = LEDGER,
    ) -> None:
        """Set up.

        Args:
            handler: What takes the rest.
            max_record_bytes: Largest record, as protobuf.
            tenant: Whose data it is when a request does not say.
            component: The receiver's name in the ledger.
            ledger: Where rejected records are counted, as received and dropped.
        """
        self.admit = handler.admit
        self._handler = handler
        self._max_record_bytes = max_record_bytes
        self._tenant = tenant
        self._component = component
        self._ledger = ledger

    def handle(self, request: ExportRequest) -> bytes:
        """See `ExportHandler.handle`."""
        if len(request.payload) <= self._max_record_bytes:
            return self._handler.handle(request)
        try:
            screened = screen(request.payload, request.signal, request.encoding, self._max_record_bytes)
        except DecodeError as error:
            raise Refusal.undecodable(error) from None
        if screened is None:
            return self._handler.handle(request)
        self._handler.handle(dataclasses.replace(request, payload=screened.payload, encoding="protobuf"))
        tenant, component, reason = resolve_tenant(request.tenant, self._tenant), self._component, "record too large"
        self._ledger.add(Outcome.RECEIVED, request.signal, tenant, screened.rejected, component=component)
        self._ledger.add(Outcome.DROPPED, request.signal, tenant, screened.rejected, component=component, reason=reason)
        message = f"records larger than {self._max_record_bytes} bytes are not accepted"
        return partial_success(request.signal, screened.rejected, message, request.encoding)
