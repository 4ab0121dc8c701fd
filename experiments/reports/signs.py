"""A colour and a mark for every member of a study: the same on the whole page, and for a network in every study."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333", "#8C6D31")
"""Okabe and Ito's, without its yellow, which is too light on white, and with a brown: told apart by colour-blind
readers. Marks and dashes say the same again."""
MARKS = ("circle", "square", "diamond", "up", "down", "cross")
DASHES = ("", "6 3", "2 2", "8 3 2 3")
_USUAL = {
    "mixste": 0,
    "stcformer": 1,
    "videopose3d": 2,
    "poseformer": 3,
    "simple_baseline": 4,
    "strided_transformer": 5,
    "uplift_upsample": 6,
    "mlp": 7,
    "diffhpe": 1,
    "d3dp": 2,
    "d3prefiner": 3,
    "di2pose": 4,
}
"""Network -> its place in the palette, where another member did not take it before."""


@dataclass(frozen=True, kw_only=True)
class Sign:
    """How a member is drawn."""

    colour: str
    mark: str
    dash: str
    """An SVG dash array."""


def signs_of(labels: Iterable[str], networks: Mapping[str, str]) -> dict[str, Sign]:
    """Member label -> sign. networks: member label -> registry name of its network, where it is known."""
    taken: dict[str, int] = {}
    count = len(PALETTE)
    for label in labels:
        usual = _USUAL.get(networks.get(label, ""))
        used = list(taken.values())
        free = [place for place in range(count) if place not in used]
        if usual is not None and usual not in used:
            taken[label] = usual
        elif free:
            taken[label] = free[0]
        else:  # more members than colours: the same colours again with other marks
            taken[label] = len(taken)
    return {
        label: Sign(
            colour=PALETTE[place % count],
            mark=MARKS[(place % count + place // count) % len(MARKS)],
            dash=DASHES[(place // count) % len(DASHES)],
        )
        for label, place in taken.items()
    }
