"""What every actor does first in its own process."""

from pipeline.config.load import ConfigTree
from pipeline.context import Context
from pipeline.logs import configure_logs


def start_context(source: ConfigTree) -> Context:
    """Configures this process's logs and returns its configuration in use. Raises ConfigError."""
    configure_logs()
    return Context(source)
