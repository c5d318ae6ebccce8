"""`telflow generate`: realistic load, to try a gateway or a backend with."""

from __future__ import annotations

import enum
from typing import Annotated, Any

import typer

from control.screen import DebugOption, Output, OutputOption, Screen

__all__ = ["generate"]


_OPTIONS = {
    "records_per_s": "--rate",
    "total_records": "--count",
    "batch_records": "--batch",
    "attributes": "--attributes",
    "services": "--services",
    "tenants": "--tenants",
    "error_share": "--errors",
    "personal_data_share": "--personal-data",
    "seed": "--seed",
}


class _Protocol(enum.StrEnum):
    GRPC = "grpc"
    HTTP_PROTOBUF = "http/protobuf"
    HTTP_JSON = "http/json"


class _Signal(enum.StrEnum):
    TRACES = "traces"
    METRICS = "metrics"
    LOGS = "logs"


def generate(
    endpoint: Annotated[
        str, typer.Option("--endpoint", "-e", help="host:port for gRPC, http://host:port for HTTP.")
    ] = "localhost:4317",
    protocol: Annotated[_Protocol | None, typer.Option(help="[default: by the endpoint]", show_default=False)] = None,
    signal: Annotated[
        list[_Signal] | None, typer.Option(help="What to send; may be repeated. [default: all]", show_default=False)
    ] = None,
    rate: Annotated[float, typer.Option("--rate", "-r", help="Records a second; 0: as fast as possible.")] = 1000.0,
    count: Annotated[
        int | None, typer.Option("--count", "-n", help="Stop after so many records.", show_default=False)
    ] = None,
    duration: Annotated[
        str | None, typer.Option("--duration", "-d", help="Stop after this time: 30s, 5m.", show_default=False)
    ] = None,
    attributes: Annotated[int, typer.Option(help="Attributes of a record.")] = 10,
    services: Annotated[int, typer.Option(help="Services that send.")] = 5,
    tenants: Annotated[int, typer.Option(min=1, max=64, help="Tenants; more than one are named in a header.")] = 1,
    tenant_header: Annotated[str, typer.Option(help="That header.")] = "x-scope-orgid",
    errors: Annotated[float, typer.Option(help="Share of records that are errors, 0 to 1.")] = 0.02,
    personal_data: Annotated[
        float, typer.Option(help="Share of records with a made-up e-mail address and card number, 0 to 1.")
    ] = 0.0,
    batch: Annotated[int, typer.Option(help="Records of a request.")] = 512,
    concurrency: Annotated[int, typer.Option(help="Requests in flight at a time.")] = 4,
    compression: Annotated[str, typer.Option(help="none, gzip, or (over HTTP) zstd.")] = "none",
    seed: Annotated[int, typer.Option(help="Equal seeds make equal data.")] = 7,
    output: OutputOption = Output.HUMAN,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Send seeded, realistic OpenTelemetry load over OTLP, and say what arrived.

    Runs until it has sent `--count` records, `--duration` is over, or Ctrl-C. Ends with 5 when a record did not arrive.

    **Examples**

    A thousand records a second, all signals, to a gateway on this host:

        telflow generate

    20,000 spans as fast as possible, a tenth of them with personal data:

        telflow generate --signal traces --count 20000 --rate 0 --personal-data 0.1

    A minute of three tenants over HTTP:

        telflow generate --endpoint http://localhost:4318 --tenants 3 --duration 1m
    """
    from control.engine import one_thread_per_library

    one_thread_per_library()
    from connectors.generator import GeneratorSettings
    from control.endpoint import client_settings
    from control.generate_run import run_generate
    from flows.generate import GenerateSettings
    from telflow.configuration import from_options

    load: dict[str, Any] = {
        "records_per_s": rate,
        "total_records": count,
        "batch_records": batch,
        "attributes": attributes,
        "services": services,
        "tenants": tenants,
        "error_share": errors,
        "personal_data_share": personal_data,
        "seed": seed,
    }
    if signal:
        load["signals"] = tuple(s.value for s in signal)
    exporter = client_settings(
        endpoint,
        protocol=protocol.value if protocol else None,
        concurrency=concurrency,
        compression=compression,
        retry={"initial_interval": "500ms", "max_elapsed_time": "30s"},
    )
    settings = GenerateSettings(
        generator=from_options(GeneratorSettings, load, _OPTIONS), exporter=exporter, tenant_header=tenant_header
    )
    run_generate(settings, _seconds(duration), Screen(output))


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    from datetime import timedelta

    from telflow.settings import parse_duration

    try:
        parsed = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--duration") from None
    return parsed.total_seconds() if isinstance(parsed, timedelta) else None
