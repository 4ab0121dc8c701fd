"""`posegrid evaluate --patch`: models that read pictures under the patch that hurts most (AdvOcc)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from posegrid.datasets.images import patches
from posegrid.experiments.scoring import about, trained
from posegrid.orchestration.batches import scoring_windows
from posegrid.orchestration.pictures import score_patches
from posegrid.orchestration.tracking import Tracking
from posegrid.orchestration.workers import Workers


def score_patched(
    run: str,
    data: Path | str,
    sizes: list[int],
    split: str,
    every: int,
    textures: Path | None,
    tracking: Callable[[], Tracking],
    show: Callable[[str], None],
) -> dict[str, Any]:
    """Print with `show` the error at the worst placement of patches of each size, and without any, over every n-th
    frame; returns the same as plain data.

    Raises what `trained` raises, and ValueError if the model reads no pictures or the patches do not fit its crops.
    """
    if every < 1:
        raise ValueError(f"--patch-every {every}: it counts frames from one picture to the next. Give at least 1.")
    protocols = [patches.Config(size=size) for size in sizes]
    model, settings, store = trained(run, data, tracking)
    windows = scoring_windows(store, settings, split)[::every]
    show("patch_px,pictures,mpjpe_worst_mm,mpjpe_without_mm")
    rows = []
    for protocol in protocols:
        found = score_patches(model, store, settings, protocol, windows, Workers().device, folder=textures)
        show(f"{protocol.size},{found.pictures},{found.worst_mm:.2f},{found.free_mm:.2f}")
        row = {"patch_px": protocol.size, "pictures": found.pictures, "mpjpe_worst_mm": found.worst_mm}
        rows.append(row | {"mpjpe_without_mm": found.free_mm})
    counted = f"joints that count: {patches.RULES[protocols[0].rule]}"
    show(f"# {settings.name} on {store.source} ({split}); {counted}")
    return {
        **about(run, settings, store, split),
        "protocol": counted,
        "frames_between_pictures": every,
        "patches": rows,
    }
