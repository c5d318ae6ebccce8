"""A user's flow, loaded by path (``flows/mine.py``) or by dotted name (``mine.flow``), from any directory."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from bytewax.dataflow import Dataflow

from control.exit_codes import FlowError
from control.flow_failure import explain
from telflow.errors import nearest
from telflow.packages import PACKAGES

__all__ = ["LoadedFlow", "is_settings_file", "load_flow"]

_T = TypeVar("_T")
_ATTRIBUTE = re.compile(r"(?P<module>.+?):(?P<name>[A-Za-z_]\w*)$")


@dataclass(frozen=True, slots=True)
class LoadedFlow:
    """A flow and where it came from.

    Attributes:
        flow: The dataflow.
        file: The module's file.
    """

    flow: Dataflow
    file: Path


def is_settings_file(target: str) -> bool:
    """Tell a gateway's settings from a flow's module.

    >>> is_settings_file("telflow.yaml"), is_settings_file("flows/mine.py")
    (True, False)
    """
    return Path(target).suffix.lower() in {".yaml", ".yml"}


def load_flow(target: str) -> LoadedFlow:
    """Import a module and return its flow.

    The module's own folder (the working directory for a dotted name) comes first on the import path, so a flow can
    import what lies beside it; the names of telflow's own packages stay telflow's.

    Args:
        target: ``path/to/mine.py`` or ``package.module``, with ``:name`` when the flow is not called ``flow``. The
            name may be that of a `Dataflow` or of a function without arguments that returns one.

    Raises:
        FlowError: There is no such module or flow, or its code raised.
    """
    match = _ATTRIBUTE.fullmatch(target)
    module_name, name = (match["module"], match["name"]) if match else (target, "flow")
    by_path = module_name.endswith(".py") or "/" in module_name
    module = _from_path(Path(module_name)) if by_path else _from_dotted(module_name)
    found = getattr(module, name, None)
    if found is None:
        raise FlowError(_no_flow(target, module, name))
    if not isinstance(found, Dataflow) and callable(found):
        found = _call(found, f"{target}: {name}()")
    if not isinstance(found, Dataflow):
        raise FlowError(f"{target}: expected {name} to be a Dataflow, got {type(found).__name__}")
    return LoadedFlow(found, Path(str(module.__file__)))


def _from_path(path: Path) -> ModuleType:
    if not path.is_file():
        beside = path.parent if path.parent.is_dir() else Path()
        near = nearest(path.name, (p.name for p in beside.glob("*.py")))
        hint = f"; did you mean {beside / near}?" if near else ""
        raise FlowError(f"{path}: expected a Python file with a flow, got {_what(path)}{hint}")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(f"user_flow_{path.stem}", path.resolve())
    if spec is None or spec.loader is None:
        raise FlowError(f"{path}: expected a Python file, whose name ends in .py; got {path.name}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # pickling the flow's classes, as recovery does, needs it there
    loader = spec.loader
    _call(lambda: loader.exec_module(module), str(path), folder)
    return module


def _from_dotted(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    path = Path(*name.split(".")).with_suffix(".py")
    try:
        exists = importlib.util.find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        exists = False
    if not exists:
        hint = ""
        if path.is_file():
            mine = name.partition(".")[0] in PACKAGES
            reason = f"'{name.partition('.')[0]}' is the name of telflow's own package; " if mine else ""
            hint = f"; {reason}give the path: {path}"
        raise FlowError(f"{name}: expected a module that can be imported from {here}, got none of that name{hint}")
    return _call(lambda: importlib.import_module(name), name, here)


def _call(function: Callable[[], _T], where: str, folder: str = "") -> _T:
    try:
        return function()
    except Exception as error:
        raise FlowError(explain(error, f"{where} cannot be loaded", folder=folder)) from error


def _no_flow(target: str, module: ModuleType, name: str) -> str:
    flows = [n for n, value in vars(module).items() if isinstance(value, Dataflow)]
    text = f"{target}: expected a Dataflow named {name}, got none"
    if flows:
        return f"{text}; did you mean {target.partition(':')[0]}:{flows[0]}?"
    return f'{text}; add `{name} = Dataflow("{module.__name__.removeprefix("user_flow_")}")` to the module'


def _what(path: Path) -> str:
    return "a directory" if path.is_dir() else "no such file"
