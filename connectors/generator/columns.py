"""Columns of made-up telemetry, built whole with numpy and Arrow: no loop over records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from telflow.schema import ANY_VALUE, ATTRIBUTE, ATTRIBUTES, RESOURCES, SCOPES, ValueType

__all__ = [
    "SERVICES",
    "Slot",
    "attributes",
    "constant",
    "empty_lists",
    "fixed_binary",
    "joined",
    "numbers",
    "personal_data",
    "pick",
    "request_slots",
    "resources",
    "scopes",
    "string_bodies",
]

Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]

SERVICES = ("frontend", "cart", "checkout", "catalogue", "payment", "shipping", "accounts", "search")
_ROUTES = ("/cart", "/cart/{id}", "/checkout", "/products", "/products/{sku}", "/users/{id}", "/login", "/search")
_METHODS = ("GET", "GET", "GET", "GET", "POST", "PUT", "DELETE")
_AGENTS = tuple(f"Mozilla/5.0 (X11; Linux x86_64) Shop/{n}.{n % 7}" for n in range(24))
_REGIONS = ("eu-central-1", "eu-west-1", "us-east-1", "ap-south-1")
_FIRST_NAMES = ("ada", "grace", "alan", "edsger", "barbara", "donald", "margaret", "linus")
_LAST_NAMES = ("lovelace", "hopper", "turing", "dijkstra", "liskov", "knuth", "hamilton", "berg")
_CARDS = ("4111111111111111", "5555555555554444", "378282246310005", "6011111111111117")  # the issuers' test numbers


@dataclass(frozen=True, slots=True)
class Slot:
    """One attribute of every record, or of those where `present` is true.

    Attributes:
        key: Its key.
        values: Its value on each record: string, int64, float64 or bool.
        present: Which records have it; all when None.
    """

    key: str
    values: pa.Array
    present: Bools | None = None


def attributes(slots: Sequence[Slot], rows: int) -> pa.ListArray:
    """Return the attributes column of `rows` records from their slots, in the order of the slots."""
    if not slots:
        return empty_lists(rows, ATTRIBUTES)
    width = len(slots)
    present = np.ones((rows, width), dtype=np.bool_)
    for at, slot in enumerate(slots):
        if slot.present is not None:
            present[:, at] = slot.present
    offsets = np.concatenate([[0], np.cumsum(present.sum(axis=1))]).astype(np.int32)
    # Values of one type stand slot after slot in one array; `order` finds that of record r, slot s at r * width + s.
    chosen = np.flatnonzero(present.ravel())
    slot_of = chosen % width
    record_of = chosen // width
    children: dict[str, pa.Array] = {
        "key": pa.array([slot.key for slot in slots], pa.string()).take(pa.array(slot_of)),
        "type": pa.array(np.array([_value_type(slot.values.type) for slot in slots], np.uint8)[slot_of]),
        "bytes": pa.nulls(len(chosen), pa.binary()),
    }
    for name, dtype in (("str", pa.string()), ("int", pa.int64()), ("double", pa.float64()), ("bool", pa.bool_())):
        children[name] = _interleaved(slots, dtype, slot_of, record_of, rows)
    values = pa.StructArray.from_arrays([children[f.name] for f in ATTRIBUTE], fields=list(ATTRIBUTE))
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=ATTRIBUTES)


def _interleaved(slots: Sequence[Slot], dtype: pa.DataType, slot_of: Ints, record_of: Ints, rows: int) -> pa.Array:
    of_type = [at for at, slot in enumerate(slots) if slot.values.type == dtype]
    if not of_type:
        return pa.nulls(len(slot_of), dtype)
    base = np.full(len(slots), -1, dtype=np.int64)
    base[of_type] = np.arange(len(of_type)) * rows
    index = base[slot_of] + record_of
    absent = base[slot_of] < 0
    column = pa.concat_arrays([slots[at].values for at in of_type])
    return column.take(pa.array(index, mask=absent))


def _value_type(dtype: pa.DataType) -> ValueType:
    kinds = {
        pa.string(): ValueType.STRING,
        pa.int64(): ValueType.INT,
        pa.float64(): ValueType.DOUBLE,
        pa.bool_(): ValueType.BOOL,
    }
    return kinds[dtype]


def pick(rng: np.random.Generator, words: Sequence[str], rows: int) -> pa.StringArray:
    """Return `rows` words drawn at random."""
    return pa.array(words, pa.string()).take(pa.array(rng.integers(0, len(words), rows)))


def joined(*parts: pa.Array | str) -> pa.StringArray:
    """Return the texts of arrays and constants joined record by record; numbers are written out."""
    texts = [p if isinstance(p, str) else p.cast(pa.string()) for p in parts]
    return pc.binary_join_element_wise(*texts, "")


def numbers(values: npt.NDArray[Any], dtype: pa.DataType | None = None) -> pa.Array:
    """Return numpy values as an Arrow column."""
    return pa.array(values, dtype)


def constant(value: Any, dtype: pa.DataType, rows: int) -> pa.Array:
    """Return one value, `rows` times."""
    return pa.repeat(pa.scalar(value, dtype), rows)


def empty_lists(rows: int, dtype: pa.ListType) -> pa.ListArray:
    """Return `rows` empty lists."""
    offsets = pa.array(np.zeros(rows + 1, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.nulls(0, dtype.value_type), type=dtype)


def fixed_binary(values: npt.NDArray[np.uint8], width: int, null: Bools | None = None) -> pa.FixedSizeBinaryArray:
    """Return bytes, `width` to a row, as an identifier column; null where told."""
    rows = len(values) // width
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), rows, [None, pa.py_buffer(values.tobytes())])
    return column if null is None else pc.if_else(pa.array(null), pa.scalar(None, pa.binary(width)), column)


def request_slots(rng: np.random.Generator, rows: int, count: int) -> list[Slot]:
    """Return `count` attributes of an HTTP service's records, the semantic conventions' own first."""
    ids = rng.integers(1, 100_000, rows)
    slots = [
        Slot("http.request.method", pick(rng, _METHODS, rows)),
        Slot("http.route", pick(rng, _ROUTES, rows)),
        Slot("http.response.status_code", numbers(rng.choice([200, 200, 200, 201, 204, 302, 404], rows))),
        Slot("url.path", joined("/shop/", pa.array(ids))),
        Slot("user_agent.original", pick(rng, _AGENTS, rows)),
        Slot("server.address", pick(rng, [f"{s}.shop.internal" for s in SERVICES], rows)),
        Slot("client.port", numbers(rng.integers(1024, 65_535, rows))),
        Slot("cloud.region", pick(rng, _REGIONS, rows)),
        Slot("app.cache.hit", pa.array(rng.integers(0, 3, rows) > 0)),
        Slot("app.score", numbers(np.round(rng.random(rows), 6))),
    ]
    for extra in range(len(slots), count):
        slots.append(Slot(f"app.attribute.{extra}", joined("value-", pa.array(rng.integers(0, 1000, rows)))))
    return slots[:count]


def personal_data(rng: np.random.Generator, rows: int, share: float) -> tuple[list[Slot], pa.StringArray, Bools]:
    """Return attributes with made-up personal data, the same as text, and which records have them."""
    has = rng.random(rows) < share
    if not has.any():
        return [], constant("", pa.string(), rows), has
    number = pa.array(rng.integers(1, 1000, rows))
    email = joined(pick(rng, _FIRST_NAMES, rows), ".", pick(rng, _LAST_NAMES, rows), number, "@example.com")
    card = pick(rng, _CARDS, rows)
    text = pc.if_else(pa.array(has), joined(" for ", email, " paid with card ", card), "")
    return [Slot("user.email", email, has), Slot("payment.card_number", card, has)], text, has


def string_bodies(text: pa.StringArray) -> pa.StructArray:
    """Return log bodies that are strings."""
    rows = len(text)
    children = {
        "type": constant(ValueType.STRING, pa.uint8(), rows),
        "str": text,
        **{name: pa.nulls(rows, ANY_VALUE.field(name).type) for name in ("int", "double", "bool", "bytes")},
    }
    return pa.StructArray.from_arrays([children[f.name] for f in ANY_VALUE], fields=list(ANY_VALUE))


def resources(tenant: str | None, services: int) -> pa.RecordBatch:
    """Return one resource per service."""
    number = pa.array(np.arange(services))
    names = pa.array([SERVICES[n] if n < len(SERVICES) else f"service-{n}" for n in range(services)], pa.string())
    slots = [
        Slot("service.name", names),
        Slot("service.namespace", constant("shop", pa.string(), services)),
        Slot("service.instance.id", joined(names, "-", number)),
        Slot("host.name", joined("node-", pc.bit_wise_and(number, 3))),
        Slot("telemetry.sdk.language", constant("python", pa.string(), services)),
    ]
    columns = {
        "tenant": constant(tenant, pa.string(), services),
        "attributes": attributes(slots, services),
        "dropped_attributes_count": constant(0, pa.uint32(), services),
        "entity_refs": empty_lists(services, RESOURCES.field("entity_refs").type),
        "schema_url": constant("https://opentelemetry.io/schemas/1.37.0", pa.string(), services),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in RESOURCES.names], schema=RESOURCES)


def scopes(name: str) -> pa.RecordBatch:
    """Return one instrumentation scope."""
    columns = {
        "name": constant(name, pa.string(), 1),
        "version": constant("1.0.0", pa.string(), 1),
        "attributes": empty_lists(1, ATTRIBUTES),
        "dropped_attributes_count": constant(0, pa.uint32(), 1),
        "schema_url": constant("", pa.string(), 1),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in SCOPES.names], schema=SCOPES)
