"""Where GeoDjango finds GDAL and GEOS: environment, else the libraries inside the pyogrio and shapely wheels.

The wheels' GDAL carries its own proj.db, needs no system package, and is new enough (>= 3.9) to parse spatial
references without touching files or the network (Django's check gis.W001).
"""

import importlib.util
from pathlib import Path


def in_wheel(package: str, stem: str) -> str | None:
    """Return the path of the shared library `stem` bundled in `package`'s wheel, or None (Django then searches)."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.origin:
        return None
    folder = Path(spec.origin).parent
    places = (
        (folder.parent / f"{package}.libs", f"{stem}-*.so*"),
        (folder / ".dylibs", f"{stem}.*.dylib"),
    )
    for directory, pattern in places:
        found = sorted(directory.glob(pattern)) if directory.is_dir() else []
        if found:
            return str(found[0])
    return None
