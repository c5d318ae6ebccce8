"""Governance: finding sensitive data and deciding what becomes of it."""

from telflow.governance.detectors import DETECTORS, Detector
from telflow.governance.redactor import Finding, Redaction, Redactor
from telflow.governance.settings import (
    DEFAULT_KEYS,
    DetectorSettings,
    HashKey,
    KeyRule,
    PatternRule,
    RedactSettings,
)

__all__ = [
    "DEFAULT_KEYS",
    "DETECTORS",
    "Detector",
    "DetectorSettings",
    "Finding",
    "HashKey",
    "KeyRule",
    "PatternRule",
    "RedactSettings",
    "Redaction",
    "Redactor",
]
