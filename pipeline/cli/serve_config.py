"""`refract serve-config`: the file that `serve deploy` and a RayService take."""

import typer

from pipeline.cli.options import ConfigFile


def serve_config(config: ConfigFile) -> None:
    """Print a Ray Serve config file for `serve deploy`.

    The path of CONFIG goes into it as it will be on the cluster's machines: absolute.
    """
    import yaml

    from pipeline.config.load import load_config
    from pipeline.usecases.serve_config import serve_tree

    typer.echo(yaml.safe_dump(serve_tree(load_config(config), config), sort_keys=False), nl=False)
