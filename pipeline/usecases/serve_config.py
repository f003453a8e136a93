"""The configuration that `serve deploy` and a RayService take."""

from pathlib import Path
from typing import Any

from pipeline.config.pipeline import Config


def serve_tree(config: Config, path: Path) -> dict[str, Any]:
    """Returns Ray Serve's configuration of one pipeline.

    Args:
        config: The pipeline's configuration.
        path: Its file on the cluster's machines.
    """
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
