"""Predicates about spans, one bit each: what a trace is remembered by when its spans are no longer at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from telflow.attributes import extract_attribute
from telflow.batch import TelemetryBatch
from telflow.errors import ConfigError
from telflow.globs import glob_mask
from telflow.sampling.policies import (
    BooleanAttribute,
    Match,
    NumericAttribute,
    Policy,
    Predicate,
    Status,
    StringAttribute,
    leaves,
)
from telflow.sampling.trace_state import Words

__all__ = ["MAX_PREDICATES", "Predicates"]

Mask: TypeAlias = npt.NDArray[np.bool_]

MAX_PREDICATES = 64
"""Most different predicates of a sampler: one bit of a word each."""

_STATUSES = {"UNSET": 0, "OK": 1, "ERROR": 2}


class Predicates:
    """The distinct predicates of some policies.

    Args:
        policies: Policies; those that do not look at single spans are left out.

    Raises:
        ConfigError: There are more than `MAX_PREDICATES`.

    >>> found = Predicates((Status(), Status(codes={"OK"}), Status()))
    >>> len(found.names), found.bit_of(Status(codes={"OK"}))
    (2, 2)
    """

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._predicates: dict[str, Predicate] = {
            _name(leaf): leaf for leaf in leaves(tuple(policies)) if isinstance(leaf, Predicate)
        }
        if len(self._predicates) > MAX_PREDICATES:
            raise ConfigError(
                f"tail sampling: expected at most {MAX_PREDICATES} different policies about spans, got "
                f"{len(self._predicates)}; values of one attribute can share a policy"
            )
        self.names: tuple[str, ...] = tuple(self._predicates)

    def bit_of(self, predicate: Predicate) -> int:
        """Return the bit that stands for a predicate."""
        return 1 << self.names.index(_name(predicate))

    def bits(self, batch: TelemetryBatch) -> Words:
        """Return for each span the bits of the predicates that are true of it."""
        found = np.zeros(batch.num_rows, np.uint64)
        for number, predicate in enumerate(self._predicates.values()):
            mask = _fits(predicate, batch)
            if mask.any():
                found |= mask.astype(np.uint64) << np.uint64(number)
        return found

    def translate(self, bits: Words, names: Sequence[str]) -> Words:
        """Return bits that stood for the predicates `names` as bits of these predicates.

        What is new is false of the spans seen before: they are not at hand to be asked.
        """
        if tuple(names) == self.names:
            return bits.copy()
        found = np.zeros(len(bits), np.uint64)
        for old, name in enumerate(names):
            if name in self.names:
                found |= ((bits >> np.uint64(old)) & np.uint64(1)) << np.uint64(self.names.index(name))
        return found


def _name(predicate: Predicate) -> str:
    fields = predicate.model_dump(mode="json")
    if isinstance(predicate, Status):
        fields["codes"] = sorted(fields["codes"])
    return str(sorted(fields.items()))


def _fits(predicate: Predicate, batch: TelemetryBatch) -> Mask:
    match predicate:
        case Status():
            codes = batch.records["status_code"]
            codes = (codes.fill_null(0) if codes.null_count else codes).to_numpy()
            # Each code by itself: a look-up of one number is several times as fast as one in a set.
            masks = [np.asarray(codes == _STATUSES[name]) for name in sorted(predicate.codes)]
            return np.asarray(np.logical_or.reduce(masks))
        case Match():
            return _plain(predicate.condition.fits(batch))
        case StringAttribute():
            return _attribute(predicate, batch, pa.string())
        case NumericAttribute():
            return _attribute(predicate, batch, pa.float64())
        case BooleanAttribute():
            return _attribute(predicate, batch, pa.bool_())


def _attribute(
    predicate: StringAttribute | NumericAttribute | BooleanAttribute, batch: TelemetryBatch, dtype: pa.DataType
) -> Mask:
    """Return which spans' attribute fits; that of the resource only where the span has none of its own."""
    inherited: Mask | None = None
    if predicate.source != "span":
        of_resources = _fits_value(predicate, extract_attribute(batch.resources["attributes"], predicate.key, dtype))
        inherited = of_resources[batch.places("resource")] if of_resources.any() else np.zeros(batch.num_rows, bool)
        if predicate.source == "resource":
            return inherited
    values = extract_attribute(batch.records["attributes"], predicate.key, dtype)
    own = _fits_value(predicate, values)
    if inherited is None or not inherited.any():
        return own
    return np.where(_plain(values.is_valid()), own, inherited)


def _fits_value(predicate: StringAttribute | NumericAttribute | BooleanAttribute, values: pa.Array) -> Mask:
    if values.null_count == len(values):
        return np.zeros(len(values), bool)
    match predicate:
        case StringAttribute():
            if any("*" in value or "?" in value for value in predicate.values):
                return _plain(glob_mask(values, predicate.values))
            # With its type: to find one out pyarrow tries to import other libraries, each time.
            return _plain(pc.is_in(values, pa.array(predicate.values, pa.string())))
        case BooleanAttribute():
            return _plain(pc.fill_null(pc.equal(values, pa.scalar(predicate.value, pa.bool_())), fill_value=False))
        case NumericAttribute():
            numbers = values.to_numpy(zero_copy_only=False)  # null becomes NaN, which lies in no range
            low = -np.inf if predicate.min_value is None else predicate.min_value
            high = np.inf if predicate.max_value is None else predicate.max_value
            return np.asarray((numbers >= low) & (numbers <= high))


def _plain(mask: pa.BooleanArray) -> Mask:
    plain: Mask = mask.to_numpy(zero_copy_only=False)
    return plain
