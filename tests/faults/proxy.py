"""A TCP proxy that breaks what passes through it, per direction, on command, and the same way for the same seed."""

import asyncio
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self, TypeVar

CHUNK = 64 << 10
POLL_S = 0.01
SLICES_PER_S = 20
"""A limited link passes its bytes in so many portions a second."""

MAX_QUEUED = 256
"""Chunks on their way through a slow link; then the proxy stops reading, and the sender's window fills."""

Result = TypeVar("Result")


class Side(StrEnum):
    """A direction, seen from the server."""

    UP = "up"
    """From client to server: requests."""
    DOWN = "down"
    """From server to client: answers."""


@dataclass(frozen=True, slots=True)
class Link:
    """What happens to the bytes of one direction. The default passes everything on."""

    latency_s: float = 0.0
    """Each byte arrives so much later; none is held up by the one before."""
    bytes_per_s: float = 0.0
    """0: no limit."""
    stalled: bool = False
    """Nothing is read any more and nothing is said about it: a half-open connection."""
    swallowed: bool = False
    """Everything is read and nothing passed on: an answer that is lost although the request was carried out."""
    cut_after: int | None = None
    """Both ends are reset once a connection has passed so many bytes on since the link became like this."""
    cuts: int = -1
    """How many connections `cut_after` cuts; -1 for all. Then the link passes everything on."""
    flip_every: int = 0
    """One bit in about so many bytes is flipped; 0 flips none."""


CLEAR = Link()


class Proxy:
    """One listening port that leads to one server. Everything may be called from any thread.

    The port is taken when the proxy is made, so that it can be written into configurations before
    anything runs. The seed decides which bits are flipped, by connection number and direction.
    """

    def __init__(self, target: int, *, seed: int = 0) -> None:
        """Takes a port on 127.0.0.1. `target` is the server's port there; it need not listen yet."""
        self.target = target
        self.seed = seed
        self.counts: Counter[str] = Counter()
        """What happened so far: connections `accepted`, `refused` by the server, `cut`; bits `flipped`."""
        self._links = {Side.UP: CLEAR, Side.DOWN: CLEAR}
        self._cut: Counter[Side] = Counter()
        self._listener = _listener(0)
        self.port = int(self._listener.getsockname()[1])
        self._pairs: set[_Pair] = set()
        self._accepting: asyncio.Task[None] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{self.port}", daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> Self:
        self._thread.start()
        self._run(self._accept_from_now())
        return self

    def set(self, *, up: Link | None = None, down: Link | None = None) -> None:
        """Changes directions for all connections, those that exist too; None leaves one as it is."""
        for side, link in ((Side.UP, up), (Side.DOWN, down)):
            if link is not None:
                self._cut[side] = 0
                self._links[side] = link

    def heal(self) -> None:
        """Passes everything on again, in both directions, and listens again. Cut connections stay cut."""
        self.set(up=CLEAR, down=CLEAR)
        self._run(self._come_up())

    def reset(self) -> int:
        """Resets every connection (RST to both ends) and returns how many there were; new ones are accepted."""
        return self._run(self._reset())

    def down(self) -> None:
        """Resets every connection and refuses new ones, as a machine does on which nobody listens."""
        self._run(self._go_down())

    def stop(self) -> None:
        if self._thread.is_alive():
            self._run(self._go_down())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    # -- on the proxy's own loop

    async def _accept_from_now(self) -> None:
        self._accepting = self._loop.create_task(self._accept())

    async def _come_up(self) -> None:
        if self._accepting is None:
            self._listener = _listener(self.port)
            await self._accept_from_now()

    async def _go_down(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait([self._accepting])
            self._accepting = None
            self._listener.close()
        await self._reset()

    async def _reset(self) -> int:
        pairs = list(self._pairs)
        if pairs:
            await asyncio.wait([pair.cut() for pair in pairs])
        return len(pairs)

    async def _accept(self) -> None:
        while True:
            client, _ = await self._loop.sock_accept(self._listener)
            server = socket.socket()
            for end in (client, server):
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.counts["accepted"] += 1
            try:
                await self._loop.sock_connect(server, ("127.0.0.1", self.target))
            except OSError:
                self.counts["refused"] += 1
                server.close()
                client.close()
                continue
            pair = _Pair(self, client, server, self.counts["accepted"])
            self._pairs.add(pair)
            pair.begin(self._loop)

    def link(self, side: Side) -> Link:
        """Returns how a direction is now."""
        link = self._links[side]
        spent = link.cut_after is not None and 0 <= link.cuts <= self._cut[side]
        return CLEAR if spent else link

    def note_cut(self, side: Side) -> None:
        """Counts a connection that `cut_after` cuts."""
        self._cut[side] += 1
        self.counts["cut"] += 1

    def forget(self, pair: "_Pair") -> None:
        """Drops a connection that has ended."""
        self._pairs.discard(pair)


class _Pair:
    """One client's connection and the one to the server behind it. Lives on the proxy's loop."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket, number: int) -> None:
        self._proxy = proxy
        self._ends = (client, server)
        self._flows = [
            _Flow(proxy, side, source, sink, random.Random(f"{proxy.seed}:{number}:{side}"))
            for side, source, sink in ((Side.UP, client, server), (Side.DOWN, server, client))
        ]
        self._passing: asyncio.Task[None] | None = None

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._passing = loop.create_task(self._pass(loop))

    def cut(self) -> asyncio.Task[None]:
        """Ends both connections with a reset; what was on its way is gone. Returns what to wait for."""
        assert self._passing is not None
        self._passing.cancel()
        return self._passing

    async def _pass(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for flow in self._flows:
                    group.create_task(flow.read(loop))
                    group.create_task(flow.write(loop))
        except (asyncio.CancelledError, ExceptionGroup):
            for end in self._ends:
                # Closing with this option sends a reset in place of a goodbye.
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        finally:
            for end in self._ends:
                end.close()
            self._proxy.forget(self)


class _Flow:
    """One direction of one connection: a reader, a queue that takes its time, a writer."""

    def __init__(
        self, proxy: Proxy, side: Side, source: socket.socket, sink: socket.socket, rng: random.Random
    ) -> None:
        self._proxy = proxy
        self._side = side
        self._source = source
        self._sink = sink
        self._rng = rng
        self._queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MAX_QUEUED)
        self._link = CLEAR
        self._num_passed = 0
        self._next_flip = -1

    async def read(self, loop: asyncio.AbstractEventLoop) -> None:
        """Reads until the sender's end."""
        data = b"?"
        while data:
            await self._while_stalled()
            data = await loop.sock_recv(self._source, CHUNK)
            await self._queue.put((loop.time() + self._proxy.link(self._side).latency_s, data))

    async def write(self, loop: asyncio.AbstractEventLoop) -> None:
        """Passes on what was read; says the sender's goodbye, too. Raises OSError where the link cuts."""
        while True:
            due_s, data = await self._queue.get()
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            await self._while_stalled()  # for what was being read when the stall began
            if not data:
                self._sink.shutdown(socket.SHUT_WR)
                return
            while data:
                data = data[await self._pass_some(loop, data) :]

    async def _pass_some(self, loop: asyncio.AbstractEventLoop, data: bytes) -> int:
        """Passes on as much as the link takes at once, and returns how much that was."""
        link = self._proxy.link(self._side)
        if link is not self._link:
            self._link, self._num_passed, self._next_flip = link, 0, -1
        size = max(1, int(link.bytes_per_s / SLICES_PER_S)) if link.bytes_per_s else len(data)
        if link.cut_after is not None:
            size = min(size, link.cut_after - self._num_passed)
        part = data[:size]
        if link.flip_every:
            part = self._flip(part, link.flip_every)
        if not link.swallowed:
            await loop.sock_sendall(self._sink, part)
        self._num_passed += len(part)
        if link.cut_after is not None and self._num_passed >= link.cut_after:
            self._proxy.note_cut(self._side)
            raise ConnectionResetError
        if link.bytes_per_s:
            await asyncio.sleep(len(part) / link.bytes_per_s)
        return len(part)

    def _flip(self, part: bytes, every: int) -> bytes:
        flipped = bytearray(part)
        end = self._num_passed + len(part)
        if self._next_flip < 0:
            self._next_flip = self._num_passed + self._rng.randrange(2 * every)
        while self._next_flip < end:
            flipped[self._next_flip - self._num_passed] ^= 1 << self._rng.randrange(8)
            self._proxy.counts["flipped"] += 1
            self._next_flip += 1 + self._rng.randrange(2 * every)
        return bytes(flipped)

    async def _while_stalled(self) -> None:
        while self._proxy.link(self._side).stalled:  # noqa: ASYNC110 - links are changed from other threads
            await asyncio.sleep(POLL_S)


def _listener(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(128)
    listener.setblocking(False)
    return listener
