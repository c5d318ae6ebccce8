"""Writes the generated parts of the documentation: ``python -m docs.build`` (or ``make docs``).

The configuration reference comes from the settings models, the command reference from the commands, the exit codes
from their enumeration. A test compares what is committed with what this writes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import typer
from pydantic import BaseModel

from connectors.generator import GeneratorSettings
from connectors.otlp import OtlpClientSettings
from control.cluster.settings import ClusterSettings
from control.exit_codes import ExitCode
from control.main import app
from flows.gateway import GatewaySettings
from flows.generate import GenerateSettings
from flows.replay import ReplaySettings
from operators import PartitionSettings
from telflow.describe import Option, options

__all__ = ["PAGES", "main"]

HERE = Path(__file__).parent
_GENERATED = "<!-- Written by `make docs`; edit the docstrings it comes from. -->\n"
_LONG = 60  # characters of a default that are still readable in a table

_IN_PYTHON: dict[type[BaseModel], str] = {
    ClusterSettings: "the cluster file of `telflow run --cluster`",
    GeneratorSettings: "`connectors.generator.GeneratorSource`, `telflow generate`",
    OtlpClientSettings: "`connectors.otlp.OtlpClient`, `connectors.otlp.AsyncOtlpClient`",
    GenerateSettings: "`flows.generate.build`",
    ReplaySettings: "`flows.replay.build`, `telflow replay`",
    PartitionSettings: "`operators.partition`",
}


def configuration() -> str:
    """Return the configuration reference."""
    parts = [_INTRODUCTION + "```yaml\n# telflow.yaml\n" + _EXAMPLE + "```\n"]
    seen: set[type[BaseModel]] = set()
    parts += _sections(GatewaySettings, "telflow.yaml", seen)
    parts.append("## Settings of flows and operators in Python\n")
    for model, users in _IN_PYTHON.items():
        parts += _sections(model, f"{model.__name__}: {users}", seen)
    return "\n".join(parts)


_INTRODUCTION = f"""\
# Configuration reference

{_GENERATED}
`telflow run` reads `telflow.yaml` (or the file you name); `telflow validate` checks it. A key that is not listed here
is refused. Every part is optional.

* Durations: `200ms`, `5s`, `1m30s`, `2h`, `7d`.
* `${{env:NAME}}` is the environment variable NAME, `${{env:NAME:-default}}` has a default for where it is not set, `$$`
  is a dollar sign. A variable that is not set and has no default is a mistake.
* A part that takes *mapping, or false* is switched off by `false`; a key with nothing after it means its defaults.
* The same settings are Python classes of the names given here: `GatewaySettings(archive=ArchiveSettings(path="data"))`.

A whole gateway:

"""

_EXAMPLE = """\
receivers:
  otlp:
    grpc: {endpoint: "127.0.0.1:4317"}
    http: {endpoint: "127.0.0.1:4318"}
drop:
  - {names: ["GET /health*"], reason: health check}
redact:
  detectors:
    ipv4: {}
span_metrics:
  window: 10s
  dimensions: [{name: http.route}]
exporters:
  backend:
    endpoint: ${env:BACKEND:-localhost:14317}
    compression: gzip
archive:
  path: telflow-data/archive
"""


def _sections(model: type[BaseModel], title: str, seen: set[type[BaseModel]]) -> Iterator[str]:
    """Yield the section of a model, then those of the models below it that had none yet."""
    if model in seen:
        return
    seen.add(model)
    level = "##" if title == "telflow.yaml" else "###"
    anchor = f'<a id="{model.__name__.lower()}"></a>'
    yield f"{level} {title}\n\n{anchor}\n`{model.__name__}`: {_flat(inspect.getdoc(model))}\n"
    entries = options(model)
    yield "| key | takes | default | meaning |\n|---|---|---|---|\n" + "\n".join(_row(o) for o in entries) + "\n"
    for option in entries:
        for below in option.models:
            path = option.key if title == "telflow.yaml" or ":" in title else f"{title}.{option.key}"
            yield from _sections(below, path + _middle(option), seen)


def _middle(option: Option) -> str:
    return ".NAME" if option.takes.startswith("mapping of") else "[]" if option.takes.startswith("list of") else ""


def _row(option: Option) -> str:
    takes = option.takes
    if option.models:
        links = ", ".join(f"[{m.__name__}](#{m.__name__.lower()})" for m in option.models)
        takes += f": {links}"
    return f"| `{option.key}` | {_cell(takes)} | {_default(option)} | {_cell(_flat(option.text))} |"


def _default(option: Option) -> str:
    if option.default is None:
        return "*required*"
    if option.models and option.default.startswith("{") and option.default != "{}":
        return "on, with its defaults"
    return f"`{_cell(option.default)}`" if len(option.default) <= _LONG else "see the class"


def _flat(text: str | None) -> str:
    """Return a docstring's prose as one line, without its examples."""
    prose = re.split(r"\n\s*>>> ", text or "")[0]
    return " ".join(prose.replace("``", "`").split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def exit_codes() -> str:
    """Return the table of exit codes."""
    rows = "\n".join(f"| {code.value} | `{code.name}` | {_cell(code.meaning)} |" for code in ExitCode)
    return (
        f"# Exit codes of `telflow`\n\n{_GENERATED}\n| code | name | when |\n|---|---|---|\n{rows}\n\n"
        "With `--output json` an error is one JSON document on standard error: "
        '`{"error": {"type": …, "message": …, "exit_code": …}}`, a wrong settings file with its `problems`.\n'
    )


def commands() -> str:
    """Return the command reference."""
    group = typer.main.get_command(app)
    found = getattr(group, "commands", {})
    parts = ["# Command reference\n", _GENERATED]
    for name, command in found.items():
        if command.hidden:
            continue
        below = getattr(command, "commands", {})
        for full_name, each in {name: command, **{f"{name} {sub}": each for sub, each in below.items()}}.items():
            parts.append(f"## telflow {full_name}\n\n{_help(each.help or '')}\n")
            if each is command and below:
                continue
            parts.append(
                "| argument or option | | default |\n|---|---|---|\n" + "\n".join(_parameters(each.params)) + "\n"
            )
    parts.append("Exit codes: [exit-codes.md](exit-codes.md). Colours: none in a pipe or with `NO_COLOR` set.\n")
    return "\n".join(parts)


def _help(text: str) -> str:
    """Return a command's help with its examples as code that a test does not run: they need a server or an archive."""
    return re.sub(r"(?m)^    (telflow .*(?:\n {6}.*)*)", lambda m: f"```text\n{m[1]}\n```", text).strip()


def _parameters(parameters: Iterable[object]) -> Iterator[str]:
    for parameter in parameters:
        names = [*getattr(parameter, "opts", ()), *getattr(parameter, "secondary_opts", ())]
        shown = getattr(parameter, "metavar", None) or ", ".join(names)
        if getattr(parameter, "param_type_name", "") == "option":
            shown = ", ".join(sorted(names, key=len, reverse=True))
        default = getattr(parameter, "default", None)
        plain = isinstance(default, (str, int, float)) and not isinstance(default, bool)
        text = _cell(getattr(parameter, "help", "") or "")
        yield f"| `{_cell(shown)}` | {text} | {f'`{default}`' if plain else ''} |"


PAGES = {
    "reference/configuration.md": configuration,
    "reference/exit-codes.md": exit_codes,
    "reference/cli.md": commands,
}
"""What is generated, by its path below docs/."""


def main() -> None:
    """Write every page."""
    for name, page in PAGES.items():
        path = HERE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(), encoding="utf-8")
        print(f"docs/{name}")


if __name__ == "__main__":
    main()
