"""`python -m inference_models.cli`."""

from inference_models.cli import main

main()
