"""Label files: any vector file somebody has, read into clean polygons in EPSG:4326."""

from thawloop.catalog.vectors.cleaning import Cleaned, clean
from thawloop.catalog.vectors.projection import Projection, projection_of
from thawloop.catalog.vectors.reading import Feature, VectorFile, read_vector_file

__all__ = ["Cleaned", "Feature", "Projection", "VectorFile", "clean", "projection_of", "read_vector_file"]
