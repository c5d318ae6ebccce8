import pyarrow as pa

__version__: str

# descriptor.rs

def otlp_fields() -> list[tuple[str, int, str, str, str, str]]:
    """Every field of every OTLP message: `(message, number, name, json_name, kind, label)`."""

# normalise.rs

def normalise(signal: str, payload: bytes) -> tuple[bytes, int]:
    """Canonical protobuf bytes of a request as the official library reads it, and how many unknown fields it had.

    Raises:
        DecodeError: What the official library refuses.
    """

# decode.rs

def decode(
    payloads: list[bytes],
    signal: str,
    json: bool,
    tenants: list[str | None],
    limits: tuple[int, int, int],
    schemas: tuple[pa.Schema, pa.Schema, pa.Schema],
) -> tuple[pa.RecordBatch, pa.RecordBatch, pa.RecordBatch, int]:
    """Records, resources and scopes of protobuf payloads or JSON texts, and how many unknown fields were skipped.

    `tenants` names the tenant of each payload, or is empty; `limits` are the fields of `telflow.codec.Limits`.
    `schemas` are those of records, resources and scopes as `telflow.schema` has them.

    Raises:
        DecodeError: A payload is not what the official library reads, or is beyond a limit.
    """

class Collector:
    """A batch that grows by a payload at a time; may be used by several threads at once.

    `limits` are the fields of `telflow.codec.Limits`, and hold for each payload by itself.
    """

    def __init__(self, signal: str, limits: tuple[int, int, int]) -> None: ...
    def add(self, payload: bytes, tenant: str | None, json: bool, room: int) -> tuple[int, int, int] | None:
        """Add a payload; returns its records, and the records and bytes in all; None when `room` does not suffice.

        Raises:
            DecodeError: As `decode`; nothing was added.
        """

    def finish(
        self, schemas: tuple[pa.Schema, pa.Schema, pa.Schema]
    ) -> tuple[pa.RecordBatch, pa.RecordBatch, pa.RecordBatch, int] | None:
        """As `decode`, of all payloads since the last call; None when there was none."""

def schemas(signal: str) -> list[pa.Schema]:
    """The schemas of records, resources and scopes as `schema.rs` spells them."""

# encode.rs

def encode(
    signal: str, json: bool, records: pa.RecordBatch, resources: pa.RecordBatch, scopes: pa.RecordBatch
) -> bytes:
    """One Export*ServiceRequest, in protobuf bytes or as JSON text.

    Raises:
        EncodeError: A column is missing or of another type, or a row number points nowhere.
    """

def encode_split(
    signal: str, json: bool, records: pa.RecordBatch, resources: pa.RecordBatch, scopes: pa.RecordBatch, max_bytes: int
) -> list[bytes]:
    """Requests of at most `max_bytes` bytes each; one empty request when there are no records.

    Raises:
        EncodeError: As `encode`, or a record that does not fit into a request alone.
    """

# json.rs

def json_to_protobuf(signal: str, text: bytes) -> tuple[bytes, int]:
    """Protobuf bytes of an OTLP/JSON request, and how many unknown names it had.

    Fields stand in the order of the text, which is not the canonical one.

    Raises:
        DecodeError: The text is not JSON, or not an OTLP/JSON request of the signal.
    """

def protobuf_to_json(signal: str, payload: bytes) -> bytes:
    """OTLP/JSON text of a request in protobuf bytes; unknown fields are left out.

    Raises:
        DecodeError: What the official library refuses.
    """

# screen.rs

def screen(signal: str, payload: bytes, json: bool, most: int) -> tuple[bytes, int] | None:
    """A request without its records larger than `most` bytes, in protobuf bytes, and how many these were.

    None when it has none, or is malformed protobuf in a way that decoding will explain.

    Raises:
        DecodeError: The payload is not what the official library reads.
    """

def count_records(signal: str, payload: bytes) -> int:
    """How many records a request in protobuf bytes has, without decoding them; 0 when it is malformed."""

# redact.rs

class Redactor:
    """Compiled redaction rules; `telflow.governance.Redactor` is the one to use."""

    def __init__(
        self,
        *,
        rules: list[tuple[str, str, str, int, str, str, str, list[str]]],
        keys: list[tuple[str, str, str, str]],
        hash_key: bytes,
        hash_digits: int,
        issuers: list[tuple[str, str, list[int]]],
        ibans: list[tuple[str, str]],
        not_domains: list[str],
        skipped_places: list[str],
    ) -> None:
        """Compile.

        Raises:
            ValueError: A rule cannot be compiled; the message says which and why.
        """

    def redact(
        self, table: str, batch: pa.RecordBatch, compact: bool
    ) -> tuple[pa.RecordBatch | None, pa.UInt32Array | None, list[tuple[str, str, int]]]:
        """One table anew (None when nothing changed), the rows not judged, and (rule, place, count).

        Raises:
            RuntimeError: The table is malformed.
        """

    def find(self, text: bytes) -> list[tuple[int, int, str]]:
        """Return (start, end, rule) of everything found, in order."""

    def replace(self, text: bytes) -> bytes | None:
        """Return the text as it may be shown; None when a rule deletes it."""

# attributes.rs

def extract_attribute(attributes: pa.RecordBatch, key: str, wanted: str | None = None) -> pa.Array:
    """The first value under `key` of every row; `wanted` names pyarrow's constructor of its type."""

def put_attributes(
    attributes: pa.RecordBatch, items: pa.RecordBatch, replace: bool, append: bool, data_type: pa.DataType
) -> pa.ListArray:
    """Attributes with `items` put in: row by row, or the same row of items for all when there is one."""

def drop_attributes(attributes: pa.RecordBatch, keys: list[str], data_type: pa.DataType) -> pa.ListArray:
    """Attributes without those under `keys`."""

def rename_attributes(
    attributes: pa.RecordBatch, old: list[str], new: list[str], data_type: pa.DataType
) -> pa.ListArray:
    """Attributes under other keys."""

# row_hash.rs

def hash_rows(batch: pa.RecordBatch, uint64: pa.DataType) -> tuple[pa.UInt64Array, pa.UInt64Array]:
    """Both halves of the hash of each row; `uint64` is `pyarrow.uint64()`.

    Raises:
        ValueError: A column is of a type that `telflow.schema` does not use.
    """

# rows.rs

def take_rows(batch: pa.RecordBatch, indices: pa.UInt32Array, schema: pa.Schema) -> pa.RecordBatch:
    """Rows at `indices`, in that order."""

def filter_rows(batch: pa.RecordBatch, mask: pa.BooleanArray, schema: pa.Schema) -> pa.RecordBatch:
    """Rows for which `mask` is true; null counts as false."""

def merge_distinct(
    batches: pa.RecordBatchReader, schema: pa.Schema, uint32: pa.DataType
) -> tuple[pa.RecordBatch, pa.UInt32Array]:
    """The rows of all batches, equal ones once; and for each old row, in order, its row number there."""

def first_difference(left: pa.RecordBatch, right: pa.RecordBatch) -> int | None:
    """The first row in which two batches differ, as far as both go."""

def give_back() -> None: ...
def count_bytes(batch: pa.RecordBatch) -> int:
    """Bytes of Arrow buffers that the rows occupy."""

# trace_slots.rs

class TraceSlots:
    """Distinct traces, each with a slot; `telflow.sampling.trace_index.TraceIndex` is the one to use.

    Traces are given as columns without nulls and of one length: both words of the trace id, and a number for the
    tenant. The `int64` in calls is `pyarrow.int64()`.
    """

    def __init__(self) -> None: ...
    def __len__(self) -> int: ...
    @property
    def high(self) -> int:
        """All slots are below."""

    def find(
        self, high: pa.UInt64Array, low: pa.UInt64Array, tenant: pa.UInt32Array, int64: pa.DataType
    ) -> pa.Int64Array:
        """The slot of each row's trace, -1 where it is not known."""

    def admit(
        self, high: pa.UInt64Array, low: pa.UInt64Array, tenant: pa.UInt32Array, int64: pa.DataType
    ) -> pa.Int64Array:
        """The slot of each row's trace; new traces get one, in the order of the rows."""

    def remove(
        self, high: pa.UInt64Array, low: pa.UInt64Array, tenant: pa.UInt32Array, int64: pa.DataType
    ) -> pa.Int64Array:
        """Forget traces; the slots they had, -1 for those that were not known."""
