"""The typer application, which loads a command's module when the command is called."""

from __future__ import annotations

import io
import sys
from importlib import import_module, metadata
from typing import Annotated, Any, Optional

import typer
import typer.core
import typer.main

from inference_models.cli import COMMANDS
from inference_models.errors import InferenceModelsError

# Parameters that several commands have.
Backend = Annotated[Optional[str], typer.Option(help="Ask for one backend.")]  # noqa: UP045 - read by typer on Python 3.10
Device = Annotated[Optional[str], typer.Option(help="Ask for one device.")]  # noqa: UP045
Precision = Annotated[Optional[str], typer.Option(help="fp32, fp16, bf16 or int8.")]  # noqa: UP045
ModelType = Annotated[Optional[str], typer.Option(help="A known id or architecture.")]  # noqa: UP045
Revision = Annotated[Optional[str], typer.Option(help="A version of the model.")]  # noqa: UP045
ApiKey = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        envvar="INFERENCE_MODELS_API_KEY",
        help="For the provider's server. Other users can see what is typed here, and "
        "not what is in the environment.",
    ),
]
ModelId = Annotated[str, typer.Argument(help="An id, a folder or a file of weights.")]


class LazyCommands(typer.core.TyperGroup):
    """A group that knows its commands by name and imports the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, from the module of the same name."""
        if cmd_name not in COMMANDS:
            return None
        found = import_module(f"inference_models.cli.{cmd_name}").command
        if isinstance(found, typer.Typer):
            return typer.main.get_command(found)
        single = typer.Typer(add_completion=False)
        single.command(cmd_name)(found)
        return typer.main.get_command(single)


group = typer.Typer(
    cls=LazyCommands,
    help="Computer-vision models behind one interface.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # a key may be among them
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _tell(version: bool) -> None:
    if version:
        typer.echo(metadata.version("inference-models-core"))
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=_tell, is_eager=True, help="Show the version and end."
    ),
]


@group.callback()
def _of_all_commands(version: Version = False) -> None:
    """Computer-vision models behind one interface."""


def app() -> None:
    """Run; an error of the library, or of a file, is one sentence and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a code page lacks is escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        group()
    except (InferenceModelsError, OSError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        raise SystemExit(1) from None
