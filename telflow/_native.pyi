"""What the Rust crate in `native/` offers. Only `telflow` imports it."""

__version__: str

# decode.rs

# encode.rs

# json.rs

# redact.rs

# attributes.rs
