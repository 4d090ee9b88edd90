"""Jobs of the releases room."""

from typing import Any

from thawloop.core.jobs import JobContext, job
from thawloop.releases import services
from thawloop.releases.models import Release


@job(queue="raster")
def materialise(job: JobContext) -> dict[str, Any]:
    """Write the files of release `args["release"]`."""
    release = Release.objects.select_related("campaign__grid").get(pk=job.args["release"])

    def progress(fraction: float, message: str) -> None:
        job.progress(fraction, message)
        job.check_cancelled()

    services.materialise(release, progress=progress)
    return {"release": release.pk, "path": release.path, "manifest_checksum": release.manifest_checksum}
