"""How many frames all measures are taken of in a second of a core: what a plan adds to the time of lifting.

python -m posegrid.experiments.benchmarks.score_frames
"""

import time

import numpy as np

from posegrid.datasets.metrics.coherence import CoherenceConfig
from posegrid.datasets.metrics.summary import MetricSums
from posegrid.datasets.skeletons import H36M_17


def main() -> None:
    """Score made-up windows of 27 and of 243 frames and print frames a second of processor time."""
    generator = np.random.default_rng(0)
    for frames in (27, 243):
        windows = 20_000 // frames
        target = generator.normal(0, 0.3, (windows, frames, 17, 3))
        predicted = target + generator.normal(0, 0.05, target.shape)
        visible = generator.random(target.shape[:-1]) > 0.2
        weight = np.ones((windows, frames))
        found = []
        for _ in range(4):
            sums = MetricSums(("a", "b"), CoherenceConfig(), H36M_17)
            began = time.process_time()
            sums.add(np.arange(windows) % 2, predicted, target, visible, weight)
            found.append(windows * frames / (time.process_time() - began))
        print(f"windows of {frames} frames: {np.median(found[1:]):,.0f} frames/s")


if __name__ == "__main__":
    main()
