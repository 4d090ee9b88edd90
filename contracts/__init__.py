"""What both sides of the torch wall agree on: imports nothing of ours, and no more than numpy and rasterio."""
