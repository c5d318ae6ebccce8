"""The two client libraries behind one face, so that a scenario is written once."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import grpc
import pytest

from connectors.otlp import AsyncOtlpClient, Delivered, NullOtlpServer, OtlpClient, OtlpClientSettings
from connectors.otlp.protocol import Refusal
from telflow import Signal, TelemetryBatch
from telflow.errors import DeliveryError
from tests.connectors.otlp.conftest import request_message
from tests.oracle import batch_from_message

PROTOCOLS = ["grpc", "http/protobuf", "http/json"]
NO_ROOM = Refusal(grpc.StatusCode.UNAVAILABLE, 503, "busy")
WRONG = Refusal(grpc.StatusCode.INVALID_ARGUMENT, 400, "wrong: canary@example.com")
QUICK = {"initial_interval": "1ms", "max_interval": "1ms"}


def settings_for(server: NullOtlpServer, protocol: str = "grpc", **more: Any) -> OtlpClientSettings:
    port = server.grpc_port if protocol == "grpc" else server.http_port
    values = {"endpoint": f"127.0.0.1:{port}", "protocol": protocol, "timeout": "60s", "retry": QUICK, **more}
    return OtlpClientSettings.model_validate(values)


def logs(records: int = 3, text: str = "x") -> TelemetryBatch:
    return batch_from_message(request_message(Signal.LOGS, records, text), Signal.LOGS, "acme")


class Threads:
    """Runs a scenario with the synchronous client."""

    @staticmethod
    def send(settings: OtlpClientSettings, *batches: TelemetryBatch) -> list[Any]:
        with OtlpClient(settings) as client:
            found: list[Any] = []
            for batch in batches:
                try:
                    found.append(client.send(batch))
                except DeliveryError as error:
                    found.append(error)
            return found

    @staticmethod
    def flush(settings: OtlpClientSettings, *batches: TelemetryBatch) -> tuple[Delivered, Delivered]:
        with OtlpClient(settings) as client:
            for batch in batches:
                client.submit(batch)
            return client.flush(60), client.flush()

    @staticmethod
    def close(settings: OtlpClientSettings, batch: TelemetryBatch, entered: threading.Event, limit_s: float) -> Any:
        """Close while a submitted batch is at the destination; what became of it."""
        client = OtlpClient(settings)
        future = client.submit(batch)
        assert entered.wait(30)
        client.close(limit_s)
        client.close()
        with pytest.raises(DeliveryError, match="closed"):
            client.send(batch)
        with pytest.raises(DeliveryError, match="closed"):
            client.submit(batch)
        return future.exception(30) or future.result()


class Tasks:
    """Runs a scenario with the asynchronous client."""

    @staticmethod
    def send(settings: OtlpClientSettings, *batches: TelemetryBatch) -> list[Any]:
        async def run() -> list[Any]:
            async with AsyncOtlpClient(settings) as client:
                found: list[Any] = []
                for batch in batches:
                    try:
                        found.append(await client.send(batch))
                    except DeliveryError as error:
                        found.append(error)
                return found

        return asyncio.run(run())

    @staticmethod
    def flush(settings: OtlpClientSettings, *batches: TelemetryBatch) -> tuple[Delivered, Delivered]:
        async def run() -> tuple[Delivered, Delivered]:
            async with AsyncOtlpClient(settings) as client:
                for batch in batches:
                    await client.submit(batch)
                return await client.flush(60), await client.flush()

        return asyncio.run(run())

    @staticmethod
    def close(settings: OtlpClientSettings, batch: TelemetryBatch, entered: threading.Event, limit_s: float) -> Any:
        async def run() -> Any:
            client = AsyncOtlpClient(settings)
            task = await client.submit(batch)
            assert await asyncio.to_thread(entered.wait, 30)
            await client.close(limit_s)
            await client.close()
            for refused in (client.send, client.submit):
                with pytest.raises(DeliveryError, match="closed"):
                    await refused(batch)
            async with asyncio.timeout(30):
                await asyncio.wait([task])
            return task.exception() or task.result()

        return asyncio.run(run())


Kind = type[Threads] | type[Tasks]
both = pytest.mark.parametrize("kind", [Threads, Tasks])
