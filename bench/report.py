"""Benchmark results: one JSON file per benchmark, figures beside the machine, versions and commit they belong to."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "machine", "write"]

RESULTS = Path(__file__).parent / "results"
_PACKAGES = (
    "bytewax",
    "deltalake",
    "grpcio",
    "numpy",
    "opentelemetry-proto",
    "orjson",
    "polars",
    "protobuf",
    "pyarrow",
)


def write(name: str, figures: Mapping[str, Any]) -> Path:
    """Write `figures` with their circumstances to ``bench/results/<name>.json`` and return that path.

    Args:
        name: The benchmark's name, for example ``codec``.
        figures: JSON-serialisable figures; units belong into the names (``decode_spans_per_s``).
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    report = {
        "benchmark": name,
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": machine(),
        "versions": _versions(),
        "figures": dict(figures),
    }
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return path


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, cores this process may use, memory, operating system."""
    return {
        "processor": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    """The commit, marked when the tree differs from it; results themselves do not count as a difference."""
    here = Path(__file__).parent.parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    commit = git("rev-parse", "--short", "HEAD")
    changed = git("status", "--porcelain", "--", ".", ":!bench/results")
    return f"{commit or 'unknown'}{'+changes' if changed else ''}"
