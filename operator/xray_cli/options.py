"""The options that several commands have, under kubectl's names."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from xray_cli.connection import Connection
from xray_cli.output import Format

SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def read_duration(text: str) -> float:
    """Seconds of 30, 30s, 5m or 1h30m, as kubectl takes them."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[hms])", text)
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not parts or "".join(map("".join, parts)) != text:
        raise typer.BadParameter(f'"{text}" is no duration like 30s, 5m or 1h30m')
    return sum(float(number) * SECONDS[unit] for number, unit in parts)


def complete_namespaces(ctx: typer.Context, incomplete: str) -> list[str]:  # noqa: ARG001
    from xray_cli.completion import known_namespaces

    return known_namespaces(ctx.params)


def complete_contexts(ctx: typer.Context, incomplete: str) -> list[str]:  # noqa: ARG001
    from xray_cli.completion import known_contexts

    return known_contexts(ctx.params)


def complete_jobs(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:  # noqa: ARG001
    from xray_cli.completion import known_jobs

    return known_jobs(ctx.params)


Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        metavar="NAMESPACE",
        help="Namespace to act in; that of the context if left out.",
        autocompletion=complete_namespaces,
    ),
]
Context = Annotated[
    str | None,
    typer.Option(
        "--context", metavar="NAME", help="Context of the kubeconfig to use.", autocompletion=complete_contexts
    ),
]
Kubeconfig = Annotated[
    str | None,
    typer.Option("--kubeconfig", metavar="FILE", help="Kubeconfig to use in place of KUBECONFIG or ~/.kube/config."),
]
RequestTimeout = Annotated[
    float,
    typer.Option(
        "--request-timeout",
        metavar="DURATION",
        parser=read_duration,
        help="Longest wait for an answer of the server, such as 5s or 1m; 0 waits for ever.",
    ),
]
AllNamespaces = Annotated[
    bool, typer.Option("--all-namespaces", "-A", help="In all namespaces, whatever -n says.", show_default=False)
]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to print.")]
JobName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the job.", autocompletion=complete_jobs)]
JobNames = Annotated[
    list[str],
    typer.Argument(metavar="NAME", help="Names of jobs.", autocompletion=complete_jobs, show_default=False),
]
JOB_FILES: Final = typer.Option(
    "--filename",
    "-f",
    metavar="FILE",
    help="File or folder with jobs, `-` is stdin; may be given several times.",
)

ImageCount = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="How many X-rays there are, if no finished run has counted them."),
]
HintsOfFlavors = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FLAVOR:NAME=VALUE,...",
        help="trainImagesPerSecond, prepareImagesPerSecond and startSeconds of a flavor, in place of its spec.hints; "
        "taken where no run has finished.",
    ),
]
KnownFrom = Annotated[
    list[str] | None,
    typer.Option(
        "--from", metavar="FILE", help="File or folder with flavors and finished jobs; no cluster is asked then."
    ),
]


def _connect(
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    request_timeout: RequestTimeout = "0",  # type: ignore[assignment]  # typer parses the default too
) -> Connection:
    return Connection(kubeconfig, context, namespace, request_timeout or None)


def connected(function: Callable[..., None]) -> Callable[..., None]:
    """A command whose first parameter is a Connection: the options that name it come with it, after the command's own."""
    _, *own = inspect.signature(function, eval_str=True).parameters.values()
    common = inspect.signature(_connect, eval_str=True).parameters

    @functools.wraps(function)
    def command(**given: Any) -> None:
        connection = _connect(**{name: given.pop(name) for name in common})
        function(connection, **given)

    together = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*own, *common.values())]
    command.__signature__ = inspect.Signature(together)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in together}
    return command
