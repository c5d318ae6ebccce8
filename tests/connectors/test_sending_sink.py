"""What sinks with a sending queue have in common: their partitions, their state, how they are stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from connectors.sending_sink import SendingSink, Way
from telflow.accounting import Ledger
from telflow.delivery.log import Durability, Log
from telflow.delivery.queue_settings import DeliverySettings
from telflow.errors import ConfigError
from tests.delivery import Destination, dead, logs, outcomes


class _Sink(SendingSink[DeliverySettings]):
    kind = "test"
    destination: Destination

    @override
    def way(self) -> Way:
        return Way(self.destination, "protobuf", 1 << 20, in_order=True)


def _sink(destination: Destination, log: Log | None = None, **more: Any) -> _Sink:
    settings = DeliverySettings.model_validate(
        {"shutdown_timeout": "50ms", "retry_on_failure": {"initial_interval": "10ms"}}
    )
    sink = _Sink(settings, log=log, **more)
    sink.destination = destination
    return sink


def test_what_is_undelivered_is_in_the_state(tmp_path: Path) -> None:
    """The snapshot is the position of the last request in the log; a run that resumes with it sends what waited."""
    ledger = Ledger()
    with Log(tmp_path / "queues.db", durability=Durability.OS, min_free_bytes=0) as log:
        down = dead()
        sink = _sink(down, log, partitions=2, ledger=Ledger())
        assert sink.list_parts() == ["test-0", "test-1"]
        part = sink.build_part("step", "test-0", None)
        part.write_batch([logs(3), logs(2)])
        state = part.snapshot()
        assert sink.stats()["test-0"].parcels == 2
        part.close()
        assert state == {"format": 1, "position": 2}
        assert (down.accepted, down.closed) == ([], True)
        up = Destination()
        part = _sink(up, log, ledger=ledger).build_part("step", "test-0", state)
        part.snapshot()
        part.close()
    assert (up.tries, up.records) == (2, 5)
    counted = outcomes(ledger)
    assert sum(count for key, count in counted.items() if key[0] == "delivered") == 5


@pytest.mark.parametrize("stopped_first", [True, False])
def test_a_stop_reaches_every_queue(stopped_first: bool) -> None:
    """Also that of a partition built after it: a destination that is down then does not hold up the end."""
    ledger = Ledger()
    sink = _sink(dead(), ledger=ledger)
    if stopped_first:
        sink.stop()
    part = sink.build_part("step", "test-0", None)
    part.write_batch([logs(3)])
    if not stopped_first:
        sink.stop()
    part.snapshot()
    part.close()
    assert sum(count for key, count in outcomes(ledger).items() if key[0] == "dropped") == 3


@pytest.mark.parametrize("state", [{"format": 2, "position": 1}, {"position": 1}, 7])
def test_state_of_something_else_is_refused(state: Any) -> None:
    """Before anything is sent or opened, saying of which step."""
    with pytest.raises(ConfigError, match=r"step: expected recovery state of format 1, got .*hint: it is another"):
        _sink(Destination()).build_part("step", "test-0", state)
