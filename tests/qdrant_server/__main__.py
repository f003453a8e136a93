"""`python -m tests.qdrant_server --path DIR --port N`: Qdrant's gRPC protocol over Edge, as a real process."""

import argparse
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from qdrant_client import grpc as qdrant
from qdrant_client.grpc import collections_service_pb2, points_service_pb2, qdrant_pb2

from tests.qdrant_server.faults import Faults
from tests.qdrant_server.service import Calls, Service
from tests.qdrant_server.storage import Storage


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--faults", type=Path)
    parser.add_argument("--version", default="1.19.0")
    parser.add_argument("--api-key", default="")
    parser.add_argument("--tls-cert", type=Path)
    parser.add_argument("--tls-key", type=Path)
    parser.add_argument("--min-free", type=int, default=0, help="bytes of disk below which writes are refused")
    parser.add_argument("--parent", type=int, default=0, help="end when this process is no longer the parent")
    options = parser.parse_args()
    storage = Storage(options.path, options.min_free)
    service = Service(Calls(storage, options.version), Faults(options.faults), options.api_key)
    server = grpc.server(
        ThreadPoolExecutor(16),
        options=[
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ],
    )
    for module, name in (
        (points_service_pb2, "Points"),
        (collections_service_pb2, "Collections"),
        (qdrant_pb2, "Qdrant"),
    ):
        server.add_generic_rpc_handlers((_handlers(service, module.DESCRIPTOR.services_by_name[name]),))
    address = f"127.0.0.1:{options.port}"
    if options.tls_cert:
        pair = (options.tls_key.read_bytes(), options.tls_cert.read_bytes())
        port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    else:
        port = server.add_insecure_port(address)
    server.start()
    sys.stdout.write(f"ready {port}\n")
    sys.stdout.flush()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    while not stop.wait(1.0):
        if options.parent and os.getppid() != options.parent:
            break
    server.stop(grace=1).wait()
    storage.close()


def _handlers(service: Service, descriptor: Any) -> grpc.GenericRpcHandler:
    """Returns the handlers of one service; calls the tests' server does not know answer UNIMPLEMENTED."""
    methods = {
        method.name: grpc.unary_unary_rpc_method_handler(
            service.handler(descriptor.name, method.name),
            request_deserializer=getattr(qdrant, method.input_type.name).FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )
        for method in descriptor.methods
        if hasattr(Calls, method.name)
    }
    return grpc.method_handlers_generic_handler(descriptor.full_name, methods)


if __name__ == "__main__":
    main()
