"""What went wrong in a user's flow, said with file, line and step instead of a traceback of the engine."""

from __future__ import annotations

import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from traceback import FrameSummary

from telflow.packages import PACKAGES, ROOT

__all__ = ["explain"]

_STEP = re.compile(r"in step [\"'`]?(?P<step>[\w.\-]+)")
_NOT_THE_USERS = tuple(
    str(Path(folder).resolve())
    for folder in (
        *(str(ROOT / name) for name in ("telflow", *PACKAGES)),
        *(sysconfig.get_paths()[kind] for kind in ("stdlib", "purelib", "platlib")),
    )
)


def explain(error: BaseException, what: str, *, folder: str = "") -> str:
    """Say where in the user's code an error came from.

    Args:
        error: What was raised; the engine's own wrappers around it are looked through.
        what: What could not be done.
        folder: The folder the flow's imports are looked up in.
    """
    chain = list(_chain(error))
    root = chain[-1]
    steps = [m["step"] for e in chain if (m := _STEP.search(str(e)))]
    lines = [what + (f" in step {_users_step(steps[-1])}" if steps else "")]
    if isinstance(root, SyntaxError):
        lines += _syntax(root)
    else:
        frame = _users_frame(chain)
        if frame is not None:
            lines += _place(frame)
        lines.append(f"  {type(root).__name__}: {root}" if str(root) else f"  {type(root).__name__}")
        lines += [f"  {note}" for note in getattr(root, "__notes__", ())]
    hint = _hint(root, folder)
    lines += [f"  hint: {hint}" if hint else "  hint: run it again with --debug to see the whole traceback"]
    return "\n".join(lines)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was raised from, down to the first one."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _users_step(step_id: str) -> str:
    """Return the step as the user wrote it: ``flow.step``, without the engine's own steps inside."""
    flow, step, *inside = [*step_id.split("."), ""]
    inner = ".".join(inside).removesuffix(".")
    return f'"{flow}.{step}"' + (f" (inside it: {inner})" if inner else "")


def _users_frame(chain: list[BaseException]) -> FrameSummary | None:
    """Return the innermost line of code that is neither Python's, nor an installed library's, nor telflow's."""
    frames = [frame for e in chain for frame in traceback.extract_tb(e.__traceback__)]
    users = [f for f in frames if not f.filename.startswith("<") and not _foreign(f.filename)]
    return users[-1] if users else None


def _foreign(filename: str) -> bool:
    resolved = str(Path(filename).resolve())
    return resolved.startswith(_NOT_THE_USERS) or "/site-packages/" in resolved


def _place(frame: FrameSummary) -> list[str]:
    column = (frame.colno or 0) + 1
    lines = [f"  {_shown(frame.filename)}:{frame.lineno}:{column} in {frame.name}"]
    text = frame.line or ""
    if text and frame.lineno is not None:
        number = f"{frame.lineno:>7}"
        lines.append(f"{number} | {text}")
        if frame.colno is not None and frame.end_colno is not None and frame.end_lineno == frame.lineno:
            # `line` is stripped; the columns count from the start of the line as it stands in the file
            indent = len(_raw_line(frame)) - len(_raw_line(frame).lstrip())
            start = frame.colno - indent
            caret = "^" * max(1, frame.end_colno - frame.colno)
            lines.append(f"{' ' * len(number)} | {' ' * start}{caret}")
    return lines


def _raw_line(frame: FrameSummary) -> str:
    try:
        return Path(frame.filename).read_text("utf-8").splitlines()[(frame.lineno or 1) - 1]
    except (OSError, UnicodeDecodeError, IndexError):
        return frame.line or ""


def _syntax(error: SyntaxError) -> list[str]:
    lines = [f"  {_shown(error.filename or '?')}:{error.lineno}:{error.offset}"]
    if error.text:
        stripped = error.text.lstrip()
        start = max(0, (error.offset or 1) - 1 - (len(error.text) - len(stripped)))
        lines += [f"{error.lineno or 0:>7} | {stripped.rstrip()}", f"{' ' * 7} | {' ' * start}^"]
    return [*lines, f"  {type(error).__name__}: {error.msg}"]


def _shown(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else filename


def _hint(error: BaseException, folder: str) -> str:
    if isinstance(error, ImportError) and "attempted relative import" in str(error):
        return "import what lies beside the flow by its name: `import helpers`, not `from . import helpers`"
    if not isinstance(error, ImportError) or not error.name:
        return ""
    top, _, rest = error.name.partition(".")
    if top in PACKAGES:
        own = f"'{top}' is telflow's own package"
        users = [Path(p) / top for p in dict.fromkeys([folder, str(Path.cwd()), *sys.path]) if p]
        mine = next((p for p in users if p.is_dir() and p.resolve() != ROOT / top), None)
        if mine is not None:
            return f"{own}, and {mine} cannot be imported under that name; rename the folder"
        return f"{own}; it has nothing named {rest or error}"
    if isinstance(error, ModuleNotFoundError):
        return f"install it with `pip install {top}` into {sys.prefix}, or put {top}.py beside the flow"
    return ""
