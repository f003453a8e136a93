"""`refract serve-config`: the file that `serve deploy` and a RayService take."""

from pathlib import Path
from typing import Any

import typer

from pipeline.cli.options import ConfigFile
from pipeline.config.app import Config


def serve_config(config: ConfigFile) -> None:
    """Print a Ray Serve config file for `serve deploy`.

    The path of CONFIG goes into it as it will be on the cluster's machines: absolute.
    """
    import yaml

    from pipeline.config.load import load_config

    typer.echo(yaml.safe_dump(serve_tree(load_config(config), config), sort_keys=False), nl=False)


def serve_tree(config: Config, path: Path) -> dict[str, Any]:
    """Returns Serve's own configuration for one pipeline."""
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": config.api.host, "port": config.api.port},
        "applications": [
            {
                "name": "refract",
                "route_prefix": "/",
                "import_path": "actors.app:build",
                "args": {"config": str(path.resolve())},
            }
        ],
    }
