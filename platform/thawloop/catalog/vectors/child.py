"""The process that reads and repairs untrusted geometry: `python -m thawloop.catalog.vectors.child MEMORY SECONDS`.

It takes requests from standard input and answers on standard output, in frames (see `sandbox`). The kernel ends it when
it takes more than SECONDS of processor time for one step, and refuses it more than MEMORY bytes.
"""

import json
import math
import os
import resource
import select
import struct
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

# pyogrio would import these, a second and hundreds of megabytes that nothing here needs.
sys.modules.update(dict.fromkeys(("pandas", "geopandas", "pyarrow")))  # type: ignore[arg-type]

import shapely  # noqa: E402

from thawloop.catalog.errors import VectorFileRefused  # noqa: E402
from thawloop.catalog.vectors.cleaning import Cleaned, clean_all, decode, place_of  # noqa: E402
from thawloop.catalog.vectors.layers import RawFeature, open_layer  # noqa: E402
from thawloop.catalog.vectors.projection import Projection, projection_of  # noqa: E402
from thawloop.catalog.vectors.repairing import OPERATIONS as REPAIRS  # noqa: E402

HEADER = struct.Struct(">II")
BATCH = 1_000
# A thousand ordinary features take some tenths; a batch that takes longer is read again one by one.
BATCH_SECONDS = 3
IDLE_SECONDS = 120

Message = tuple[dict[str, Any], bytes]


def main() -> None:
    """Serve requests until standard input ends or nothing was asked for a while."""
    memory, seconds = int(sys.argv[1]), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not end up among the frames
    allow = _Allowance(seconds)
    while (request := _receive(sys.stdin.buffer)) is not None:
        allow()
        _send(answers, {"begun": True})
        try:
            for message, blob in _serve(*request, allow):
                _send(answers, message, blob)
            _send(answers, {"end": _peak_bytes()})
        except MemoryError:
            sys.exit(1)
        except VectorFileRefused as problem:
            _send(answers, {"refused": str(problem)})
            _send(answers, {"end": 0})
        except Exception:  # noqa: BLE001  # a bug of ours must not look like a broken feature: the parent raises it
            _send(answers, {"traceback": traceback.format_exc()})


def _peak_bytes() -> int:
    """Most memory that this process has held; what `getrusage` says begins with the peak of the one it came from."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


class _Allowance:
    """Grants a step its processor time: beyond it the kernel ends the process (SIGXCPU)."""

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds

    def __call__(self, seconds: int | None = None) -> None:
        until = math.ceil(time.process_time()) + min(seconds or self._seconds, self._seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (until, resource.RLIM_INFINITY))


def _receive(stream: BinaryIO) -> Message | None:
    if not select.select([stream], [], [], IDLE_SECONDS)[0]:
        return None
    head = stream.read(HEADER.size)
    if len(head) < HEADER.size:
        return None
    head_size, blob_size = HEADER.unpack(head)
    return json.loads(stream.read(head_size)), stream.read(blob_size)


def _send(stream: BinaryIO, message: dict[str, Any], blob: bytes = b"") -> None:
    head = json.dumps(message).encode()
    stream.write(HEADER.pack(len(head), len(blob)) + head + blob)
    stream.flush()


def _serve(request: dict[str, Any], blob: bytes, allow: "_Allowance") -> Iterator[Message]:
    if request["operation"] == "read":
        yield from _read(request, allow)
    else:
        allow(request["seconds"])
        started = time.process_time()
        result, facts = REPAIRS[request["operation"]](shapely.from_wkb(blob))
        yield facts | {"cost": time.process_time() - started}, shapely.to_wkb(result)


def _read(request: dict[str, Any], allow: "_Allowance") -> Iterator[Message]:
    """A file's features from number `start`: the first batch one by one, each announced, if asked to be `careful`."""
    name, buffer_points = request["name"], request["buffer_points"]
    layer = open_layer(Path(request["file"]), name, request["layer"])
    projection = projection_of(layer.crs, override=request["crs"], name=name)
    yield {"crs": layer.crs, "fields": layer.fields}, b""
    careful = request["careful"]
    for batch in layer.batches(request["start"], BATCH):
        if careful:
            for feature in batch:
                yield {"next": feature.id}, b""
                allow()
                yield {"place": _place(feature, projection)}, b""
                yield _frame([feature], clean_all([feature.geometry], projection, buffer_points=buffer_points))
            careful = False
        else:
            allow(BATCH_SECONDS)
            shapes = [feature.geometry for feature in batch]
            yield _frame(batch, clean_all(shapes, projection, buffer_points=buffer_points))


def _place(feature: RawFeature, projection: Projection) -> list[float] | None:
    """Where a feature lies that may turn out to be too costly."""
    try:
        geometry = decode(feature.geometry) if feature.geometry else None
    except shapely.errors.GEOSException:
        return None
    return place_of(geometry, projection) if geometry is not None else None


def _frame(features: list[RawFeature], cleaned: list[Cleaned]) -> Message:
    wkb = [b"" if item.polygons is None else bytes(shapely.to_wkb(item.polygons)) for item in cleaned]
    rows = [
        {
            "id": feature.id,
            "size": len(shape),
            "properties": feature.properties,
            "refused": feature.problem or item.refused,
            "is_empty": bool(feature.problem) or item.is_empty,
            "is_point": item.is_point,
            "has_polygon": item.has_polygon and not feature.problem,
            "repaired": item.repaired,
            "area_change": item.area_change,
            "place": item.place,
        }
        for feature, item, shape in zip(features, cleaned, wkb, strict=True)
    ]
    return {"features": rows}, b"".join(wkb)


if __name__ == "__main__":
    main()
