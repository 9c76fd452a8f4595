"""The command line: `inference-models <command>`, one module a command.

A command's module is imported when it is called, and only its name, help and parameters
stand in it. Needs the extra `cli`.
"""

from __future__ import annotations

import sys

COMMANDS = ("bench", "cache", "compile", "doctor", "download", "explain", "models")
"""Modules of this package, each with a `command`: a function, or a group of them."""


def main() -> None:
    """Run the command line, or say how to install what it needs."""
    try:
        from inference_models.cli.app import app
    except ImportError as error:
        if error.name not in ("typer", "rich", "click"):
            raise
        sys.exit(
            f"the command line needs {error.name}; "
            'pip install "inference-models-core[cli]"'
        )
    app()
