"""The faults that the tests' proxy makes are the ones it says."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.broker import free_port
from tests.faults.proxy import Link, Proxy

TEXT = bytes(range(256)) * 64


@pytest.fixture
def received() -> list[bytes]:
    """What the server has read, one entry per connection that ended."""
    return []


@pytest.fixture
def port(received: list[bytes]) -> Iterator[int]:
    """A server that answers each connection with what it reads."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        read = b""
        with connection:
            try:
                while data := connection.recv(1 << 16):
                    read += data
                    connection.sendall(data)
            except OSError:
                pass
        received.append(read)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=[connection], daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@pytest.fixture
def proxy(port: int) -> Iterator[Proxy]:
    with Proxy(port) as running:
        yield running


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def echo(client: socket.socket, data: bytes) -> bytes:
    """Sends, and reads as much again."""
    sender = threading.Thread(target=client.sendall, args=[data])
    sender.start()
    answer = b""
    while len(answer) < len(data) and (part := client.recv(1 << 16)):
        answer += part
    sender.join()
    return answer


def wait_for(received: list[bytes], count: int = 1) -> list[bytes]:
    deadline_s = time.monotonic() + 5
    while len(received) < count and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return received


def test_without_a_fault_everything_passes_both_ways_and_the_end_too(proxy: Proxy, received: list[bytes]) -> None:
    with connect(proxy) as client:
        assert echo(client, TEXT * 40) == TEXT * 40
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    assert wait_for(received) == [TEXT * 40]


@pytest.mark.parametrize("side", ["up", "down"])
def test_latency_delays_each_byte_and_holds_none_up_behind_another(proxy: Proxy, side: str) -> None:
    proxy.set(**{side: Link(latency_s=1.0)})
    with connect(proxy) as client:
        started_s = time.monotonic()
        client.sendall(b"a")
        time.sleep(0.5)
        client.sendall(b"b")
        assert client.recv(1) == b"a"
        first_s = time.monotonic() - started_s
        assert client.recv(1) == b"b"
        second_s = time.monotonic() - started_s
    assert 1.0 <= first_s < 1.5
    assert 1.5 <= second_s < 2.0


def test_bandwidth_is_limited(proxy: Proxy) -> None:
    proxy.set(down=Link(bytes_per_s=20_000))
    with connect(proxy) as client:
        started_s = time.monotonic()
        assert echo(client, b"x" * 10_000) == b"x" * 10_000
        assert 0.4 <= time.monotonic() - started_s < 1.5


def test_a_stalled_link_is_silent_and_goes_on_where_it_stopped(proxy: Proxy) -> None:
    with connect(proxy) as client:
        assert echo(client, b"before") == b"before"
        proxy.set(down=Link(stalled=True))
        client.sendall(b"after")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)
        proxy.heal()
        client.settimeout(5)
        assert client.recv(10) == b"after"


def test_an_answer_is_lost_although_the_server_has_the_request(proxy: Proxy, received: list[bytes]) -> None:
    proxy.set(down=Link(cut_after=0, cuts=1))
    with connect(proxy) as client:
        client.sendall(b"request")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert wait_for(received) == [b"request"]
    with connect(proxy) as client:
        assert echo(client, b"again") == b"again"
    assert proxy.counts["cut"] == 1


def test_swallowed_answers_never_come_and_the_requests_do(proxy: Proxy, received: list[bytes]) -> None:
    proxy.set(down=Link(swallowed=True))
    with connect(proxy) as client:
        client.sendall(b"request")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
    assert wait_for(received) == [b"request"]


def test_a_link_is_cut_after_exactly_so_many_bytes(proxy: Proxy, received: list[bytes]) -> None:
    proxy.set(up=Link(cut_after=1_000))
    with connect(proxy) as client, pytest.raises(ConnectionResetError):
        echo(client, TEXT[:2_000])
    assert wait_for(received) == [TEXT[:1_000]]


def test_bits_are_flipped_alike_for_the_same_seed_and_otherwise_for_another(port: int) -> None:
    answers = []
    for seed in (1, 1, 2):
        with Proxy(port, seed=seed) as proxy, connect(proxy) as client:
            proxy.set(down=Link(flip_every=1_000))
            answers.append(echo(client, TEXT))
            flipped = sum((was ^ came).bit_count() for was, came in zip(TEXT, answers[-1], strict=True))
            assert flipped == proxy.counts["flipped"] > 5
    assert answers[0] == answers[1] != answers[2]


def test_connections_are_reset_and_new_ones_taken(proxy: Proxy) -> None:
    with connect(proxy) as client:
        assert echo(client, b"a") == b"a"
        assert proxy.reset() == 1
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with connect(proxy) as client:
        assert echo(client, b"b") == b"b"


def test_a_proxy_that_is_down_refuses_and_comes_up_on_the_same_port(proxy: Proxy) -> None:
    with connect(proxy) as client:
        assert echo(client, b"a") == b"a"
        proxy.down()
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    proxy.heal()
    with connect(proxy) as client:
        assert echo(client, b"b") == b"b"


def test_a_server_that_is_away_looks_like_one(proxy: Proxy) -> None:
    proxy.target = free_port()
    with connect(proxy) as client:
        assert client.recv(1) == b""
    assert proxy.counts["refused"] == 1
