"""`python -m inference_models` is the command line, wherever its script lies."""

from __future__ import annotations

from inference_models.cli import main

main()
