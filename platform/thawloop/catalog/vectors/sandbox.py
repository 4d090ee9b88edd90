"""Child processes, bounded in memory and processor time, for operations that untrusted geometry could make costly.

A self-crossing ring of 400 kB can take gigabytes to repair, and nested collections overflow the stack: no check
beforehand can tell which. So the work is done in a process that the kernel can end. Children that stayed small are
kept for the next call: starting one takes half a second.
"""

import atexit
import contextlib
import json
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings

HEADER = struct.Struct(">II")
SOURCES = Path(__file__).resolve().parents[3]
# A child that sends nothing for so many times the processor time that a step may take is hanging, not slow: the kernel
# ends a step that computes too long, this one that waits.
SILENCE_FACTOR = 30
KEEP_SECONDS = 60
KEEP_BYTES = 400 * 1024 * 1024
# What a child needs of the environment; passwords are not among it.
_PASSED_ON = ("PATH", "LANG", "LC_", "LD_LIBRARY_PATH", "PROJ_", "GDAL_DATA", "PYTHON", "TMPDIR", "VIRTUAL_ENV")

Message = tuple[dict[str, Any], bytes]


class Overrun(Exception):
    """A child needed more memory or time than it may, or crashed; the message completes "the feature …"."""


class _Child:
    """One process of `thawloop.catalog.vectors.child` and the pipes to it."""

    def __init__(self) -> None:
        self.memory, self.seconds = settings.THAWLOOP_VECTOR_MEMORY_BYTES, settings.THAWLOOP_VECTOR_FEATURE_SECONDS
        environment = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
        environment |= {
            "PYTHONPATH": os.pathsep.join([str(SOURCES), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "1",
            "PROJ_NETWORK": "OFF",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "thawloop.catalog.vectors.child", str(self.memory), str(self.seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            bufsize=0,
        )
        self._received = bytearray()
        self.was_idle = False
        self.idle_since = time.monotonic()

    def is_fresh(self) -> bool:
        """Whether it still runs, under today's limits, and will not end by itself any moment."""
        limits = (settings.THAWLOOP_VECTOR_MEMORY_BYTES, settings.THAWLOOP_VECTOR_FEATURE_SECONDS)
        return (
            self._process.poll() is None
            and (self.memory, self.seconds) == limits
            and time.monotonic() - self.idle_since < KEEP_SECONDS
        )

    def send(self, request: dict[str, Any], blob: bytes) -> None:
        assert self._process.stdin is not None
        head = json.dumps(request).encode()
        left = memoryview(HEADER.pack(len(head), len(blob)) + head + blob)
        with contextlib.suppress(BrokenPipeError):  # a dead child's exit code is explained when its answer is read
            while left:
                left = left[self._process.stdin.write(left) :]

    def receive(self) -> Message:
        """The next message.

        Raises:
            Overrun: There is none.
        """
        head_size, blob_size = HEADER.unpack(self._read(HEADER.size))
        head = json.loads(self._read(head_size))
        return head, self._read(blob_size)

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        until = time.monotonic() + self.seconds * SILENCE_FACTOR
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        while len(self._received) < size:
            if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
                raise Overrun(f"takes longer than {self.seconds * SILENCE_FACTOR} s")
            part = os.read(self._process.stdout.fileno(), 1 << 20)
            if not part:
                raise self._end_of_child()
            self._received += part
            until = time.monotonic() + self.seconds * SILENCE_FACTOR
        data = bytes(self._received[:size])
        del self._received[:size]
        return data

    def _end_of_child(self) -> Overrun:
        code = self._process.wait()
        if code == -signal.SIGXCPU:
            return Overrun(f"takes more than {self.seconds} s of processor time")
        if code == -signal.SIGSEGV:
            return Overrun("is nested too deeply, or broken in a way that ends the process that reads it")
        return Overrun(f"needs more than {self.memory / 1e9:.1f} GB of memory, or ends the process that reads it")

    def end(self) -> None:
        """End the process and free what it holds here."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


_idle: list[_Child] = []
# A forked process must not talk over its parent's pipes.
os.register_at_fork(after_in_child=_idle.clear)


@atexit.register
def _end_idle() -> None:
    while _idle:
        _idle.pop().end()


def _take() -> _Child:
    with contextlib.suppress(IndexError):  # another thread may take the last one
        while True:
            child = _idle.pop()
            if child.is_fresh():
                return child
            child.end()
    return _Child()


def _begin(request: dict[str, Any], blob: bytes) -> _Child:
    """A child that works on the request."""
    while True:
        child = _take()
        child.send(request, blob)
        try:
            child.receive()
        except Overrun:
            child.end()
            if not child.was_idle:
                raise
        else:
            return child


def ask(request: dict[str, Any], blob: bytes = b"") -> Iterator[Message]:
    """Send a child one request; yields its messages as they arrive.

    Raises:
        Overrun: It ran out of memory or time, or crashed.
        RuntimeError: There is a mistake in what it ran.
    """
    child, well_behaved = _begin(request, blob), False
    try:
        while True:
            message, data = child.receive()
            if "traceback" in message:
                raise RuntimeError(f"The process that reads vector files failed:\n{message['traceback']}")
            if "end" in message:
                well_behaved = message["end"] < KEEP_BYTES
                return
            yield message, data
    finally:
        if well_behaved:
            child.idle_since, child.was_idle = time.monotonic(), True
            _idle.append(child)
        else:
            child.end()
