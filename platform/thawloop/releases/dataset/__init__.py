"""The dataset directory (docs/architecture.md): chips, COCO annotations, dataset.json, manifest and data card."""
