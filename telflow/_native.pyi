__version__: str

# decode.rs

# encode.rs

# json.rs

# redact.rs

# attributes.rs
