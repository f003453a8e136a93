"""Brings Ray up for the app: before Serve is imported, or while it is, for each takes seconds."""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module

import ray

from actors.cluster import check_resources, connect, quieten, required_resources
from pipeline.config.pipeline import Config
from pipeline.engine.entry import check_tasks
from pipeline.errors import ConfigError
from pipeline.usecases.running import Note

PORT_WAIT_S = 10.0
"""What a killed run started has always been gone after two seconds on an idle machine."""


def start_ray(config: Config, address: str | None, note: Note) -> None:
    """Checks what needs no cluster, then joins Ray at the address, or starts it here. One thread may call it, once.

    Raises:
        ConfigError: nothing is left running; the message says what to mend.
        TransientError: the cluster cannot be reached or started.
    """
    for name, model in config.models.items():
        check_tasks(name, model, config.tasks_of(name))
    if not address:
        # On a cluster Serve may hold the port already, for apps before and beside this one.
        _wait_for_port(config.api.host, config.api.port, note)
    note(f"joining Ray at {address}" if address else "starting Ray on this machine")
    importing = threading.Thread(target=_import_ahead, args=("actors.supervisor",), name="import", daemon=True)
    importing.start()
    needed = required_resources(config)
    with _signal_handlers_kept():
        connect(address, config.ray.namespace, needed, log_to_driver=True, preload="ray.serve")
    try:
        check_resources(needed, "models.*.replicas times {resource}, and ray.ingestors")
    except ConfigError:
        ray.shutdown()
        raise
    importing.join()
    quieten()


def _import_ahead(name: str) -> None:
    with suppress(Exception):  # whoever needs it imports it again, and hears why not
        import_module(name)


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Ray puts handlers of its own in place of the caller's, and dies of a SIGTERM that comes while actors start."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_for_port(host: str, port: int, note: Note) -> None:
    """Waits until the port is free: after a kill -9 Ray's processes notice only seconds later, and one holds it."""
    deadline_s = time.monotonic() + PORT_WAIT_S
    waiting = False
    while (error := _bind_error(host, port)) is not None:
        if time.monotonic() >= deadline_s:
            raise ConfigError(
                f"api.port: {host}:{port} cannot be used ({error.strerror}). "
                "Is another pipeline running? Choose another port"
            )
        if not waiting:
            waiting = True
            note(f"waiting up to {PORT_WAIT_S:.0f} s for {host}:{port} ({error.strerror})")
        time.sleep(0.2)


def _bind_error(host: str, port: int) -> OSError | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None
