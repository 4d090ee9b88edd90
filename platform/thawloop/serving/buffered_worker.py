"""A gunicorn worker in which half-sent requests occupy a connection but no thread.

gunicorn looks after the processes (start, restart, graceful stop); in each, waitress reads requests whole, headers and
body, in one event loop before a thread works on them, and sends answers from there, too. gunicorn's own threads read
from the client themselves: as many half-sent requests as there are threads stop such a server.

This file needs nothing but gunicorn and waitress: Label Studio's server, which lives in another environment, uses it.
"""

import logging
import os
import resource
import time
from typing import Any
from weakref import WeakKeyDictionary

from gunicorn.workers.base import Worker
from waitress.server import create_server

SILENCE_SECONDS = 30  # how long a connection may be silent
PATIENCE_SECONDS = 30.0  # how long a request may take to arrive, and one second more for each:
SLOWEST_BYTES_PER_SECOND = 10_000.0
MAX_HEADER_BYTES = 64 * 1024
OPEN_FILES = 8192
# Answers beyond this block their thread until the client has read; below it they wait in temporary files.
MAX_WAITING_ANSWER_BYTES = 4 * 1024**3


class BufferedWorker(Worker):  # type: ignore[misc]  # gunicorn has no types
    """waitress in a process of gunicorn's.

    It takes from gunicorn's configuration `threads` (requests answered at once), `worker_connections` (open at once;
    when they run out, those that have been sending longest make room), `graceful_timeout` and `forwarded_allow_ips`
    (the proxy whose X-Forwarded-For and X-Forwarded-Proto are believed: its first address, or `*`).
    """

    max_body_bytes = 256 * 1024**2  # as in docker/proxy/nginx.conf

    def run(self) -> None:
        """Serve until asked to stop or until gunicorn is gone."""
        _allow_open_files(OPEN_FILES)
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # it warns of every request that waits for a thread
        self._since: WeakKeyDictionary[Any, float] = WeakKeyDictionary()  # when a request that is arriving began
        trusted = self.cfg.forwarded_allow_ips
        server = create_server(
            self.wsgi,
            sockets=[listener.sock for listener in self.sockets],
            threads=self.cfg.threads,
            connection_limit=self.cfg.worker_connections,
            channel_timeout=SILENCE_SECONDS,
            cleanup_interval=5,
            max_request_header_size=MAX_HEADER_BYTES,
            max_request_body_size=self.max_body_bytes + 1,  # waitress refuses from this size on
            outbuf_high_watermark=MAX_WAITING_ANSWER_BYTES,
            trusted_proxy="*" if "*" in trusted else next(iter(trusted), None),
            trusted_proxy_count=1,
            trusted_proxy_headers={"x-forwarded-for", "x-forwarded-proto"} if trusted else set(),
            ident=None,
        )
        while self.alive and os.getppid() == self.ppid:
            self._turn(server)
            self._close_the_slow(server)
        self._finish(server)

    def _turn(self, server: Any, seconds: float = 1.0) -> None:
        """Let every connection that is ready receive or send, and tell gunicorn that we live."""
        self.notify()
        server.asyncore.loop(timeout=seconds, use_poll=True, map=server._map, count=1)

    def _close_the_slow(self, server: Any) -> None:
        """Close connections whose request takes too long to arrive and, when there are too many, the oldest of them."""
        now = time.monotonic()
        arriving = []
        for channel in list(server.active_channels.values()):
            if channel.requests or channel.total_outbufs_len:
                continue  # its request is being answered
            request = channel.request
            began = now - (time.time() - channel.last_activity) if request is None else self._since.get(request)
            if began is None:
                began = self._since[request] = now
            arriving.append((began, channel))
            sent = request.body_bytes_received if request is not None else 0
            if now - began > PATIENCE_SECONDS + sent / SLOWEST_BYTES_PER_SECOND:
                channel.will_close = True
        surplus = len(server.active_channels) - int(0.9 * self.cfg.worker_connections)
        if surplus > 0:
            for _began, channel in sorted(arriving, key=lambda entry: entry[0])[:surplus]:
                channel.will_close = True

    def _finish(self, server: Any) -> None:
        """Take no more connections, answer what was received whole, then end."""
        server.accepting = False
        deadline = time.monotonic() + self.cfg.graceful_timeout
        while time.monotonic() < deadline and os.getppid() == self.ppid:
            if not any(channel.requests or channel.total_outbufs_len for channel in server.active_channels.values()):
                break
            self._turn(server, 0.1)
        server.task_dispatcher.shutdown(timeout=1)


def _allow_open_files(wanted: int) -> None:
    """Raise the limit of open files as far as this account may: each connection is one, a large body another."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
