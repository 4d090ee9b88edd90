"""What both sides of the torch wall agree on; of others' code it imports no more than numpy, pydantic and rasterio."""
