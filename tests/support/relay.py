"""A wire that can be cut, to a server that other tests use too."""

import socket
import threading
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass

from tests.support.server import free_port


@dataclass
class Loss:
    """Of an answer: to who says `words`, in this order, on one connection."""

    words: list[bytes]
    silent: bool
    happened: bool = False


class Relay:
    """A wire to a server, with a port of its own on this machine."""

    def __init__(self, target: int, host: str = "127.0.0.1") -> None:
        self.port = free_port()
        self._target = (host, target)
        self._ends: list[socket.socket] = []
        self._asking: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._flowing = threading.Event()
        self._flowing.set()
        self._losses: list[Loss] = []
        self.mend()

    def mend(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """End all connections, and refuse new ones."""
        assert self._listener is not None
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._flowing.set()
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends.clear()

    def freeze(self) -> None:
        """Take bytes, but hand none on."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Hand on what was held back, and all that follows."""
        self._flowing.set()

    def lead_to(self, target: int) -> None:
        """Connect to another port of that host from now on. Connections that there are stay as they are."""
        self._target = (self._target[0], target)

    @property
    def connections(self) -> int:
        """How many there are that who made them has not ended, as far as that was handed on."""
        return len(self._asking)

    def lose_answer(self, *words: bytes, silently: bool = False) -> Loss:
        """Have the first connection that says all this end when the last of it is answered or, silently, hear nothing
        from then on."""
        self._losses.append(Loss([*words], silently))
        return self._losses[-1]

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                try:
                    far = socket.create_connection(self._target)
                except OSError:  # nobody is there now, but perhaps for the next
                    near.close()
                    continue
                self._ends += [near, far]
                self._asking.add(near)
                suffered: list[Loss] = []
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(source, target, near, suffered), daemon=True).start()

    def _pass_on(
        self, source: socket.socket, target: socket.socket, asking: socket.socket, suffered: list[Loss]
    ) -> None:
        """One way of a connection. What `asking` says may make it suffer a loss."""
        with ExitStack() as stack:
            stack.enter_context(suppress(OSError))
            stack.enter_context(closing(source))
            if source is asking:
                stack.callback(self._asking.discard, asking)
            while data := source.recv(65536):
                self._flowing.wait()
                if source is asking:
                    self._overhear(data, suffered)
                elif suffered and suffered[0].happened:
                    if suffered[0].silent:
                        continue
                    break
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)

    def _overhear(self, data: bytes, suffered: list[Loss]) -> None:
        if self._losses and self._losses[0].words[0] in data:
            suffered.append(self._losses.pop(0))
        for loss in suffered:
            while loss.words and loss.words[0] in data:
                loss.words.pop(0)
            loss.happened = not loss.words
