"""Vector files (labels, regions): in all common formats, read into valid polygons in EPSG:4326.

`reading` is what the platform calls. It stages a file under a plain name (`staging`) and lets a child process
(`sandbox`, `child`) do, within bounds of memory and time, what an untrusted file could make costly: opening it
(`layers`, `table`), reprojecting (`projection`) and repairing it (`cleaning`). `mending` lets the same child repair
single geometries. What the child runs knows neither settings nor database.
"""
