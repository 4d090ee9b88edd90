"""The dataset directory (DESIGN.md): chips, COCO annotations, dataset.json, manifest and data card."""
