"""Dimension values of spans and of their events, as columns for a table of series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from telflow.attributes import extract_attribute
from telflow.dimensions import first_values, typed, typed_scalar
from telflow.globs import glob_mask
from telflow.resource_keys import keys_of_resources
from telflow.span_metrics.settings import Dimension, SpanMetricsSettings

__all__ = ["SpanKeys", "fixed_types"]

_UNKNOWN_SERVICE = pa.scalar("unknown_service", pa.string())
_STATUS_UNSET = pa.scalar(0, pa.int32())
_NAMELESS = pa.scalar(None, pa.string())
_NO_TEXT = pa.scalar("", pa.string())
_FALSE = pa.scalar(False, pa.bool_())
_Maker: TypeAlias = Callable[["SpanKeys"], pa.Array]


class SpanKeys:
    """The columns of some spans; what is asked for twice is worked out once.

    Args:
        records: The spans.
        resources: Of the batch.
        scopes: Of the batch.
    """

    def __init__(
        self, records: pa.RecordBatch, resources: pa.RecordBatch, scopes: pa.RecordBatch, settings: SpanMetricsSettings
    ) -> None:
        self._records = records
        self._resources = resources
        self._scopes = scopes
        self._settings = settings
        self._fixed: list[pa.Array] | None = None
        self._found: dict[Dimension, pa.Array] = {}

    def columns(self, dimensions: Sequence[Dimension]) -> list[pa.Array]:
        """Return tenant, the spans' own attributes, and dimensions."""
        return [*self._own(), *(self._dimension(dimension) for dimension in dimensions)]

    def event_columns(
        self, dimensions: Sequence[Dimension], own: Sequence[Dimension], span: pa.Array, attributes: pa.ListArray
    ) -> list[pa.Array]:
        """Return the same for events.

        Args:
            dimensions: Those of their spans.
            own: Those looked for on events first.
            span: Row of each event's span.
            attributes: Of the events.
        """
        found = [_spread(column, span) for column in self.columns(dimensions)]
        for dimension in own:
            inherited = _spread(self._dimension(dimension), span)
            if dimension.source == "any":
                plain = inherited.dictionary_decode() if isinstance(inherited, pa.DictionaryArray) else inherited
                inherited = pc.coalesce(typed(first_values(attributes, dimension.name)), plain)
            found.append(inherited)
        return found

    def _own(self) -> list[pa.Array]:
        if self._fixed is None:
            excluded = self._settings.exclude_dimensions
            self._fixed = [make(self) for name, (_, make) in _OWN.items() if name not in excluded]
            if self._settings.include_instrumentation_scope:
                self._fixed += self._scope()
            if self._settings.resource_attributes:
                keys = keys_of_resources(self._resources, self._settings.resource_attributes)
                self._fixed.append(self.of_resource(keys))
        return self._fixed

    def of_resource(self, values: pa.Array) -> pa.DictionaryArray:
        """Return what is known of each resource, for each span."""
        return pa.DictionaryArray.from_arrays(self._records["resource"], values, safe=False)  # the batch has checked it

    def service(self) -> pa.Array:
        """Return the service of each span."""
        service = extract_attribute(self._resources["attributes"], "service.name", pa.string())
        return self.of_resource(_filled(service, _UNKNOWN_SERVICE))

    def tenant(self) -> pa.Array:
        """Return whose each span is."""
        return self.of_resource(self._resources["tenant"])

    def column(self, name: str) -> pa.Array:
        """Return a fixed field."""
        return self._records[name]

    def _scope(self) -> list[pa.Array]:
        name = self._scopes["name"]
        wanted = pc.and_(
            glob_mask(name, self._settings.include_instrumentation_scope),
            pc.fill_null(pc.not_equal(name, _NO_TEXT), _FALSE),
        )
        version = pc.if_else(pc.equal(self._scopes["version"], _NO_TEXT), _NAMELESS, self._scopes["version"])
        place = self._records["scope"]
        return [
            pa.DictionaryArray.from_arrays(place, pc.if_else(wanted, values, _NAMELESS), safe=False)
            for values in (name, version)
        ]

    def _dimension(self, dimension: Dimension) -> pa.Array:
        if dimension not in self._found:
            self._found[dimension] = self._look_up(dimension)
        return self._found[dimension]

    def _look_up(self, dimension: Dimension) -> pa.Array:
        default = None if dimension.default is None else typed_scalar(dimension.default)
        default_value = pa.scalar(default, pa.binary())
        inherited = typed(first_values(self._resources["attributes"], dimension.name))
        if dimension.source == "resource":
            return self.of_resource(pc.coalesce(inherited, default_value))
        own = typed(first_values(self._records["attributes"], dimension.name))
        if dimension.source == "any":
            own = pc.coalesce(own, inherited.take(self._records["resource"]))
        return pc.coalesce(own, default_value)


_OWN: dict[str, tuple[pa.DataType, _Maker]] = {
    "tenant": (pa.string(), SpanKeys.tenant),
    "service.name": (pa.string(), SpanKeys.service),
    "span.name": (pa.string(), lambda keys: keys.column("name")),
    "span.kind": (pa.int32(), lambda keys: keys.column("kind")),
    "status.code": (pa.int32(), lambda keys: _filled(keys.column("status_code"), _STATUS_UNSET)),
}


def fixed_types(settings: SpanMetricsSettings) -> dict[str, pa.DataType]:
    """Return name and Arrow type of each column before the dimensions; the resource's key is named `resource`."""
    found = {name: dtype for name, (dtype, _) in _OWN.items() if name not in settings.exclude_dimensions}
    if settings.include_instrumentation_scope:
        found |= {f"span.instrumentation.scope.{part}": pa.string() for part in ("name", "version")}
    if settings.resource_attributes:
        found["resource"] = pa.binary()
    return found


def _filled(column: pa.Array, value: pa.Scalar) -> pa.Array:
    return column.fill_null(value) if column.null_count else column


def _spread(column: pa.Array, rows: pa.Array) -> pa.Array:
    if isinstance(column, pa.DictionaryArray):
        return pa.DictionaryArray.from_arrays(column.indices.take(rows), column.dictionary, safe=False)
    return column.take(rows)
