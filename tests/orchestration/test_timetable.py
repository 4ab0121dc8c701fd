"""List scheduling against a clock that ticks through every second, and against Graham's bounds."""

import random

import pytest

from posegrid.orchestration.timetable import Job, critical_path, wall_clock


def ticked(jobs: list[Job], side_by_side: int) -> int:
    """The same rule, second by second, for whole seconds above 0."""
    left = {job.key: int(job.seconds) for job in jobs}
    begun: list[str] = []
    now = 0
    while any(left.values()):
        busy = [key for key in begun if left[key]]
        for job in jobs:
            if len(busy) < side_by_side and job.key not in begun and not any(left[key] for key in job.needs):
                begun.append(job.key)
                busy.append(job.key)
        for key in busy:
            left[key] -= 1
        now += 1
    return now


def drawn(seed: int) -> list[Job]:
    chance = random.Random(seed)
    return [
        Job(
            key=str(number),
            seconds=chance.randint(1, 9),
            needs=tuple(str(before) for before in range(number) if chance.random() < 0.2),
        )
        for number in range(12)
    ]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("side_by_side", [1, 2, 5])
def test_as_if_every_second_were_played(seed: int, side_by_side: int) -> None:
    jobs = drawn(seed)
    found = wall_clock(jobs, side_by_side)
    assert found == ticked(jobs, side_by_side)
    whole, chain = sum(job.seconds for job in jobs), critical_path(jobs)
    assert max(chain, whole / side_by_side) <= found <= chain + whole / side_by_side


def test_a_wrapper_waits_for_its_lifter() -> None:
    lifters = [Job(key=f"lifter {number}", seconds=10) for number in range(2)]
    wrappers = [Job(key=f"wrapper {number}", seconds=5, needs=(f"lifter {number}",)) for number in range(2)]
    assert wall_clock([*lifters, *wrappers], 1) == 30
    assert wall_clock([*lifters, *wrappers], 2) == wall_clock([*lifters, *wrappers], 9) == 15
    assert critical_path([*lifters, *wrappers]) == 15


def test_what_is_done_elsewhere_is_not_waited_for() -> None:
    assert wall_clock([Job(key="wrapper", seconds=5, needs=("a finished run",))], 1) == 5
    assert wall_clock([], 3) == critical_path([]) == 0


def test_a_circle_is_refused() -> None:
    with pytest.raises(ValueError, match="2 of 3 jobs wait for one another"):
        wall_clock([Job(key="a", seconds=1), *(Job(key=k, seconds=1, needs=(n,)) for k, n in ("bc", "cb"))], 1)
