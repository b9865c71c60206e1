"""`kubectl xray`, or kubectl-xray: the command line of the operator.

A command's module is imported when the command is asked for: `list` needs none of what the others do.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import shlex
import sys
from typing import Any, Final

import typer
from typer._completion_classes import completion_init
from typer.core import TyperArgument, TyperCommand, TyperGroup
from typer.main import get_command

from xray_cli.errors import CommandError
from xray_cli.examples import EXAMPLES
from xray_operator import __version__

PROGRAM: Final = "kubectl xray"
COMMANDS: Final = {
    "submit": "xray_cli.commands.submit:submit",
    "list": "xray_cli.commands.listing:list_jobs",
    "watch": "xray_cli.commands.watch:watch",
    "describe": "xray_cli.commands.describe:describe",
    "logs": "xray_cli.commands.logs:print_logs",
    "report": "xray_cli.commands.report:bring_report",
    "quote": "xray_cli.commands.quote:quote",
    "compare": "xray_cli.commands.compare:compare",
    "cost": "xray_cli.commands.cost:tell_cost",
    "suspend": "xray_cli.commands.control:suspend",
    "resume": "xray_cli.commands.control:resume",
    "rerun": "xray_cli.commands.control:rerun",
    "render": "xray_cli.commands.render:render_jobs",
    "doctor": "xray_cli.commands.doctor:examine",
    "completion": "xray_cli.commands.completion:print_script",
}
"""Each command's function, in the order of the help."""
COMPLETION: Final = "_KUBECTL_XRAY_COMPLETE"
"""Where it is set, words are completed in place of a command."""
EVERYWHERE: Final = ("-n", "--namespace", "--context", "--kubeconfig", "--request-timeout")
"""Options with a value that kubectl takes before a command too."""
INTERRUPTED: Final = 130
"""As a shell says of what SIGINT ended."""


class Argument(TyperArgument):
    """Told as kubectl tells it: NAME, without braces and types of Python."""

    def display_type_rich(self, ctx: Any) -> None:  # noqa: ARG002
        return None

    def _usage_display_name(self) -> str:
        return super()._usage_display_name().replace("{", "").replace("}", "")


class Command(TyperCommand):
    """Explained as kubectl explains its own: examples stand before options."""

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        super().format_help_text(ctx, formatter)
        with formatter.section("Examples"):
            formatter.write_text(f"\b\n{EXAMPLES[str(self.name)]}")  # lines stay as they are


class Commands(TyperGroup):
    """The commands of COMMANDS."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        # names alone: one is suggested for a similar word
        self.commands = dict.fromkeys(COMMANDS)  # type: ignore[assignment]  # see get_command

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, _, function = COMMANDS[cmd_name].partition(":")
        alone = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=SETTINGS)
        alone.command(cmd_name, cls=Command)(getattr(importlib.import_module(module), function))
        command = get_command(alone)
        for param in command.params:
            if isinstance(param, TyperArgument):
                param.__class__ = Argument
        return command


SETTINGS: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
app: Final = typer.Typer(cls=Commands, add_completion=False, rich_markup_mode=None, context_settings=SETTINGS)


@app.callback(invoke_without_command=True)
def kubectl_xray(
    version: bool = typer.Option(False, "--version", help="Print the version and end.", show_default=False),
) -> None:
    """Train Vision Transformers on chest X-rays: submit jobs, watch them, and bring their reports home."""
    if version:
        print(f"kubectl-xray {__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point of kubectl-xray."""
    sys.exit(run(sys.argv[1:]))


def complete_for_kubectl() -> None:
    """Entry point of kubectl_complete-xray, which kubectl asks for the words that may follow `kubectl xray ...`.

    Prints: a word per line, with a tab and what it means, then what kubectl does with them: :4, offer these and no files.
    """
    *before, incomplete = sys.argv[1:] or [""]
    words = shlex.join(["kubectl-xray", *before]) + " " + (shlex.quote(incomplete) if incomplete else "")
    asked = {COMPLETION: "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args", "_TYPER_COMPLETE_ARGS": words}
    os.environ.update(asked)
    with contextlib.redirect_stdout(io.StringIO()) as offered, contextlib.suppress(SystemExit):
        run([])
    print("\n".join(filter(None, [offered.getvalue().strip(), ":4"])))


def run(arguments: list[str]) -> int:
    """One command with these words; returns the exit code. What it can't do is said in kubectl's words, on stderr."""
    if COMPLETION in os.environ:
        completion_init()
    try:
        words = as_kubectl_takes_them(arguments) or ([] if COMPLETION in os.environ else ["--help"])
        code = get_command(app).main(words, prog_name=PROGRAM, complete_var=COMPLETION, standalone_mode=False)
        sys.stdout.flush()
        return int(code or 0)
    except CommandError as error:
        print(error.line, file=sys.stderr)
    except typer.TyperException as error:
        print(usage_error(error), file=sys.stderr)
    except BrokenPipeError:
        # who read has seen enough; what is left in the buffer must not be tried again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    return 1


def as_kubectl_takes_them(words: list[str]) -> list[str]:
    """The same words, with kubectl's own options behind the command where they stand before it; and `-o=json` as `-o json`.

    No words where no command is among them.
    """
    split = [part for word in words for part in (word.split("=", 1) if re.match(r"-\w=", word) else [word])]
    at = 0
    while at < len(split) and split[at].partition("=")[0] in EVERYWHERE:
        at += 1 if "=" in split[at] else 2
    return [split[at], *split[:at], *split[at + 1 :]] if at < len(split) else []


def usage_error(error: Any) -> str:
    """As kubectl puts it: what is wrong, and where the help is."""
    asked = error.ctx.command_path if getattr(error, "ctx", None) else PROGRAM
    told = " ".join(error.format_message().replace("Value error, ", "").split())  # pydantic's word
    return f"error: {told}\nSee '{asked} --help' for usage."


if __name__ == "__main__":
    main()
