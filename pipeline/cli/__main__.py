"""`python -m pipeline.cli` is `refract`."""

from pipeline.cli.main import main

main()
