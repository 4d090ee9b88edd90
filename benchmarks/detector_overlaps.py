"""The effect of suppressing nested and duplicate detections: detections, pairs and accuracy by the largest share.

    python -m benchmarks.detector_overlaps --dataset DIR --checkpoint DIR [--splits val test]

A pair is two detections of a class on a tile that both cover more than half of the smaller one.
"""

import argparse
from pathlib import Path

import numpy as np

from ml_backend.detector import Search, load, read_dataset
from ml_backend.detector.evaluation.coco import average_precision
from ml_backend.detector.evaluation.findings import predict_split
from ml_backend.detector.evaluation.overlaps import CANDIDATES, best_f1, pairs_sharing, suppressed


def main() -> None:
    """Find once per split, leave out by every share, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--splits", nargs="+", default=["val", "test"])
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    detector = load(options.checkpoint, options.device)
    dataset = read_dataset(options.dataset).with_modalities(detector.modalities)
    print("| split | largest share | detections | pairs | AP | AP50 | AP30 | F1 |")
    print("|" + "---|" * 8)
    for split in options.splits:
        everything = predict_split(detector, dataset, split, search=Search(max_overlap=1.0))
        for share in sorted(CANDIDATES, reverse=True):
            left = suppressed(everything, share)
            ap, _ = average_precision(left.truth, left.predictions, left.max_detections)
            counts = [len(left.predictions), len(pairs_sharing(left, 0.5))]
            scores = [f"{value:.3f}" for value in (np.mean(ap[1:]), ap[1], ap[0], best_f1(left))]
            print("| " + " | ".join(map(str, [split, share, *counts, *scores])) + " |", flush=True)


if __name__ == "__main__":
    main()
