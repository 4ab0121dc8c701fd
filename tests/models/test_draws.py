"""Random numbers of one step: independent of the number of workers, and with the stated rates."""

import pytest
import torch

from posegrid.models.blocks.draws import Draws
from posegrid.models.interface import Batch


def _draws(windows: int, rank: int = 0, world: int = 1, seed: int = 0) -> Draws:
    batch = Batch(
        keypoints=torch.zeros(windows, 1, 1, 2), visible=torch.ones(windows, 1, 1).bool(), rank=rank, world=world
    )
    return Draws(batch, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "draw",
    [
        lambda d: d.normal(3, 2),
        lambda d: d.integers(50),
        lambda d: d.survivors(0.3, 3, 5),
        lambda d: d.survivors(0.3, 3, 5, window_axis=2).movedim(2, 0),
    ],
    ids=["normal", "integers", "survivors", "survivors-last"],
)
def test_workers_see_the_rows_of_the_global_draw(draw):
    whole = draw(_draws(6))
    assert len(whole) == 6
    for rank in range(3):
        assert draw(_draws(2, rank, 3)).equal(whole[rank::3])


def test_rates():
    draws = _draws(1000)
    for rate in (0.03, 0.27, 0.5):
        survived = draws.survivors(rate, 101)
        assert {round(value, 5) for value in survived.unique().tolist()} == {0.0, round(1 / (1 - rate), 5)}
        # 101,000 independent values: tolerance is five standard deviations.
        tolerance = 5 * (rate * (1 - rate) / survived.numel()) ** 0.5
        assert (survived == 0).float().mean().item() == pytest.approx(rate, abs=tolerance)
        by_position = (survived == 0).float().mean(0)
        assert (by_position - rate).abs().max() < 5 * (rate * (1 - rate) / 1000) ** 0.5


def test_integers_cover_their_range_evenly():
    counts = _draws(10_000).integers(50).bincount(minlength=50)
    # 200 expected in each, standard deviation 14; five of them.
    assert (counts - 200).abs().max() < 70


def test_a_shared_draw_is_one_number_for_all_workers():
    draws = _draws(4)
    kept = torch.stack([draws.shared_survivor(0.25) for _ in range(4000)])
    assert {round(value, 5) for value in kept.unique().tolist()} == {0.0, round(1 / 0.75, 5)}
    # 4000 independent values: five standard deviations of 0.0068.
    assert (kept == 0).float().mean().item() == pytest.approx(0.25, abs=0.034)
    other = _draws(2, rank=1, world=2)
    assert other.shared_survivor(0.25) == _draws(4).shared_survivor(0.25)
