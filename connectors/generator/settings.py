"""Options of the load generator."""

from __future__ import annotations

from pydantic import Field, field_validator

from telflow.schema import Signal
from telflow.settings import Settings

__all__ = ["GeneratorSettings"]


class GeneratorSettings(Settings):
    """What a made-up shop sends; equal settings, seed and start time give equal data."""

    signals: tuple[Signal, ...] = (Signal.TRACES, Signal.METRICS, Signal.LOGS)
    """Signals, sent in turn."""

    records_per_s: float = Field(default=1000.0, ge=0)
    """Rate over all signals; 0: as fast as possible."""

    total_records: int | None = Field(default=None, ge=0)
    """End after so many records; null: never."""

    batch_records: int = Field(default=512, ge=1, le=65_536)
    """Records of a batch, and of a request."""

    attributes: int = Field(default=10, ge=0, le=128)
    """Attributes of a record."""

    services: int = Field(default=5, ge=1, le=1000)
    """Services, each a resource of its own."""

    tenants: int = Field(default=1, ge=0, le=10_000)
    """Tenants, named ``tenant-1`` and so on; each batch belongs to one. 0: nobody's data."""

    error_share: float = Field(default=0.02, ge=0, le=1)
    """Share of spans that fail, of log records that are errors."""

    personal_data_share: float = Field(default=0.0, ge=0, le=1)
    """Share of records with a made-up e-mail address and payment card in their attributes, logs also in the body."""

    seed: int = Field(default=7, ge=0)
    """Another seed, other data."""

    start_time_unix_nano: int | None = Field(default=None, ge=0)
    """Time of the first record; null: when the generator starts."""

    @field_validator("signals")
    @classmethod
    def _check_signals(cls, signals: tuple[Signal, ...]) -> tuple[Signal, ...]:
        if not signals:
            raise ValueError("expected at least one of traces, metrics, logs, got none")
        return signals
