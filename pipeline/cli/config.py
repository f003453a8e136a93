"""`refract config`: the configuration's reference, for people, editors and scripts."""

import typer

from pipeline.cli.output import print_json

config_app = typer.Typer(help="The configuration's reference.", no_args_is_help=False)


@config_app.command()
def table() -> None:
    """Print every key as a Markdown table: type, default, what it does."""
    from pipeline.config.describe import config_table

    typer.echo(config_table(), nl=False)


@config_app.command()
def schema() -> None:
    """Print the JSON schema, which editors use to complete and check a file."""
    from pipeline.config.pipeline import Config

    print_json(Config.model_json_schema())
