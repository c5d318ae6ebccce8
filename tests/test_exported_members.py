"""Public means exported: `__all__` of every module and package says what is public, and is right."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

PACKAGES = ["telflow", "operators", "connectors", "flows", "control"]


def modules() -> list[str]:
    names = []
    for package in PACKAGES:
        root = importlib.import_module(package)
        names.append(package)
        names += [found.name for found in pkgutil.walk_packages(root.__path__, f"{package}.")]
    return [name for name in names if not name.rpartition(".")[2].startswith("_")]


def defined_in(module: ModuleType) -> set[str]:
    """Public classes and functions that the module itself defines."""
    found = set()
    for name, value in vars(module).items():
        if name.startswith("_") or not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        if value.__module__ == module.__name__:
            found.add(name)
    return found


@pytest.mark.parametrize("name", modules())
def test_all_names_what_is_public(name: str) -> None:
    """Every name in `__all__` is there, once; every public class and function of the module is in it."""
    # `operators.filter` and its like: the package may have a function of the module's name.
    module = importlib.import_module(name)
    listed = getattr(module, "__all__", [])
    assert len(listed) == len(set(listed))
    assert [entry for entry in listed if not hasattr(module, entry)] == []
    assert defined_in(module) - set(listed) == set()


@pytest.mark.parametrize("package", ["operators"])
def test_a_package_exports_what_its_modules_offer(package: str) -> None:
    """Whoever writes a flow finds every operator and its settings in the package itself."""
    root = importlib.import_module(package)
    for found in pkgutil.iter_modules(root.__path__, f"{package}."):
        module = importlib.import_module(found.name)
        wanted = {n for n in module.__all__ if n.endswith("Settings") or n == found.name.rpartition(".")[2]}
        assert wanted - set(root.__all__) == set()
