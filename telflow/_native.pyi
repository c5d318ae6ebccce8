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

# encode.rs

# json.rs

# redact.rs

# attributes.rs
