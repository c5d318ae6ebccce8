"""By what records are spread over endpoints: the identifier of their trace, their tenant, or an attribute."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa

from telflow.batch import Level, TelemetryBatch
from telflow.hashing import Hashes, hash_binary, hash_text, mix

__all__ = ["RoutingKey"]

_SERVICE = "service.name"


class RoutingKey:
    """Gives each record of a batch a number; records with the same key get the same number everywhere.

    A record without the key is spread by its resource's ``service.name`` (data points have no trace), one without that
    goes with the others of its batch, each batch elsewhere.
    """

    def __init__(self, name: str = "trace_id") -> None:
        """Choose the key.

        Args:
            name: ``trace_id``, ``tenant``, or an attribute of the record or else of its resource.
        """
        self._name = name
        self._batches = itertools.count(1)

    def hashes(self, batch: TelemetryBatch) -> Hashes:
        """Return the number of each record's key."""
        found = np.zeros(batch.num_rows, np.uint64)
        for hashes in self._candidates(batch):
            missing = found == 0
            found[missing] = hashes[missing]
            if found.all():
                return found
        found[found == 0] = mix(np.array([next(self._batches)], np.uint64))[0]
        return found

    def _candidates(self, batch: TelemetryBatch) -> list[Hashes]:
        if self._name == "trace_id":
            own = [hash_binary(batch.column("trace_id"))] if "trace_id" in batch.records.schema.names else []
        elif self._name == "tenant":
            own = [hash_text(batch.tenants())]
        else:
            own = [_attribute(batch, self._name, "record"), _attribute(batch, self._name, "resource")]
        return [*own, _attribute(batch, _SERVICE, "resource")]


def _attribute(batch: TelemetryBatch, key: str, level: Level) -> Hashes:
    return hash_text(batch.attribute(key, level=level, type=pa.string()))
