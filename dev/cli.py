"""Prints docs/cli.md with the commands as kubectl-xray explains them. Run by `make generate`; `make lint` compares."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

from dev.reference import table
from xray_cli.__main__ import PROGRAM, app
from xray_cli.examples import EXAMPLES

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
BEGIN, END = "<!-- made by dev/cli.py -->\n", "<!-- end of what is made -->\n"
COMMON = ("namespace", "context", "kubeconfig", "request_timeout")
"""Parameters that all commands have which ask a cluster: told once."""


def main() -> None:
    before, rest = PAGE.read_text().split(BEGIN)
    print(before + BEGIN + "\n".join(commands()) + END + rest.split(END)[1], end="")


def commands() -> Iterator[str]:
    """A section for each command, and one for the options that they share."""
    group: Any = get_command(app)
    context = typer.Context(group, info_name=PROGRAM)
    found = [(name, group.get_command(context, name)) for name in group.list_commands(context)]
    for name, command in found:
        yield from section(command, typer.Context(command, info_name=name, parent=context))
    listing = dict(found)["list"]
    yield "### Common options\n"
    yield from options([param for param in listing.params if param.name in COMMON])


def section(command: Any, context: typer.Context) -> Iterator[str]:
    """Usage, explanation, examples and what it takes."""
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"### {context.info_name}\n\n```\n{usage}\n```\n\n{prose(command.help)}\n"
    yield f"```sh\n{EXAMPLES[command.name]}\n```\n"
    own = [param for param in command.params if param.name not in COMMON and param.name != "help"]
    yield from arguments([param for param in own if param.param_type_name == "argument"])
    yield from options([param for param in own if param.param_type_name == "option"])


def prose(text: str) -> str:
    """Paragraphs, each on one line."""
    return "\n\n".join(re.sub(r"\s+", " ", part) for part in inspect.cleandoc(text).split("\n\n"))


def arguments(params: list[Any]) -> Iterator[str]:
    if params:
        yield table(("argument", "meaning"), [(f"`{param.display_name_raw}`", param.help or "") for param in params])


def options(params: list[Any]) -> Iterator[str]:
    if params:
        rows = [
            (", ".join(f"`{word}`" for word in param.opts), value(param), default(param), param.help)
            for param in params
        ]
        yield table(("option", "value", "default", "meaning"), rows)


def value(param: Any) -> str:
    """What follows the option."""
    if param.is_flag:
        return ""
    choices = param.type_descriptor.choices
    return ", ".join(f"`{choice.value}`" for choice in choices) if choices else f"`{param.metavar}`"


def default(param: Any) -> str:
    given = getattr(param.default, "value", param.default)
    return f"`{given}`" if given not in (None, False) else ""


if __name__ == "__main__":
    main()
