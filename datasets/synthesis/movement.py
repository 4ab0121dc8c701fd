"""A person in motion before it becomes positions: all controls with the habits and small sways everybody has.

Legend: F frames. Body axes: x forward, y left, z up. Sides: 0 left, 1 right. Metres, radians, seconds.
"""

from dataclasses import dataclass, field

import numpy as np

from posegrid.datasets.synthesis.body import SIDES, Body, Posture, joints_of
from posegrid.datasets.synthesis.curves import minimum_jerk, wander
from posegrid.datasets.synthesis.stepping import SHUFFLE, Gait, ankle_paths, hip_height


@dataclass(frozen=True, kw_only=True)
class Person:
    """A body and how it habitually moves."""

    body: Body
    cadence: float
    """Strides per second relative to the average."""
    tempo: float
    """Speed of movements other than walking, relative to the average."""
    swing: float
    """Size of arm swings relative to the average."""
    elbow: float
    """Flexion of the hanging arm."""
    slouch: float
    """Rounding of the upper back."""
    gaze: float
    """Nodding of the head when at rest."""
    sway: float
    """Size of shifts of weight and of rotations of hips and trunk, relative to the average."""
    width: float
    """Distance between the feet relative to the average."""
    main_hand: int
    """Side of the hand that is used more."""


def draw_person(generator: np.random.Generator, height: float) -> Person:
    """A person of that height (metres) with drawn proportions and habits."""
    return Person(
        body=Body(
            height=height,
            leg_scale=generator.uniform(0.97, 1.03),
            width_scale=generator.uniform(0.93, 1.07),
        ),
        cadence=generator.uniform(0.92, 1.08),
        tempo=generator.uniform(0.85, 1.2),
        swing=generator.uniform(0.6, 1.35),
        elbow=np.radians(generator.uniform(15.0, 28.0)),
        slouch=np.radians(generator.uniform(0.0, 12.0)),
        gaze=np.radians(generator.uniform(-4.0, 10.0)),
        sway=generator.uniform(0.7, 1.3),
        width=generator.uniform(0.85, 1.25),
        main_hand=int(generator.random() < 0.85),
    )


@dataclass(kw_only=True)
class Movement:
    """Controls of one recording. Actions start from `at_rest` and change what they need."""

    person: Person
    generator: np.random.Generator
    time: np.ndarray
    """(F,) seconds; starts before 0 and ends late, so that steps at both ends are whole. `positions` cuts it."""
    frame_rate: float
    base: np.ndarray
    """(F, 2) floor point the body stands over."""
    heading: np.ndarray
    """(F,) direction the body faces."""
    phase: np.ndarray
    """(F,) strides done."""
    gait: Gait
    stagger: np.ndarray
    """(2,) how far each foot stands ahead of the body."""
    shift: np.ndarray
    """(F, 2) hips relative to the base, forward and to the left."""
    straightness: float = 0.993
    """Share of the leg's length used when standing tallest."""
    lowering: np.ndarray = field(default_factory=lambda: np.zeros(1))
    """(F,) how far the hips are below the greatest height, as a share of it."""
    bounce: np.ndarray = field(default_factory=lambda: np.zeros(1))
    """(F,) added to the height of the hips."""
    pelvis: np.ndarray
    lumbar: np.ndarray
    chest: np.ndarray
    head: np.ndarray
    arms: np.ndarray
    hands: np.ndarray
    """(F, 2, 3) where hands reach: forward and to the left of the base, above the floor."""
    hand_weights: np.ndarray

    def positions(self) -> np.ndarray:
        """(F, 17, 3) joints in the world."""
        body = self.person.body
        ankles, toes = ankle_paths(body, self.base, self.heading, self.phase, self.gait, self.stagger)
        hips = self.base + self.turned(self.shift)
        height = hip_height(body, hips, self.heading, ankles, self.straightness, self.frame_rate)
        root = np.column_stack([hips, height * (1 - self.lowering) + self.bounce])
        targets = np.empty_like(self.hands)
        for side in range(2):
            targets[:, side, :2] = self.base + self.turned(self.hands[:, side, :2])
            targets[:, side, 2] = self.hands[:, side, 2]
        return joints_of(
            body,
            Posture(
                root=root, heading=self.heading, pelvis=self.pelvis, lumbar=self.lumbar, chest=self.chest,
                head=self.head, arms=self.arms, ankles=ankles, toes=toes, leg_soft_from=self.straightness - 0.008,
                hand_targets=targets, hand_weights=self.hand_weights,
            ),
        )  # fmt: skip

    def turned(self, offset: np.ndarray) -> np.ndarray:
        """(F, 2) offsets forward and to the left as offsets in the world."""
        c, s = np.cos(self.heading), np.sin(self.heading)
        return np.stack([c * offset[:, 0] - s * offset[:, 1], s * offset[:, 0] + c * offset[:, 1]], axis=-1)

    def bow(self, angle: np.ndarray) -> None:
        """Lean the trunk forward by `angle` (F,), shared by hips, lower and upper trunk; the gaze follows in part."""
        self.pelvis[:, 0] += 0.45 * angle
        self.lumbar[:, 0] += 0.35 * angle
        self.chest[:, 0] += 0.20 * angle
        self.head[:, 0] -= 0.55 * angle


def at_rest(person: Person, generator: np.random.Generator, time: np.ndarray, frame_rate: float) -> Movement:
    """Standing at the origin, facing x, with breathing, shifting weight and never quite still limbs."""
    frames = len(time)
    degree = np.radians(1.0)
    sway = wander(generator, time, 2, 0.35) * np.array([0.006, 0.012]) * person.sway
    breath = 0.6 * degree * np.sin(2 * np.pi * 0.27 * time + generator.uniform(0, 2 * np.pi))
    pelvis = wander(generator, time, 3, 0.5) * 1.2 * degree * person.sway
    # hips drop on the side that carries less
    pelvis[:, 1] -= 1.2 * sway[:, 1]
    lumbar = wander(generator, time, 3, 0.5) * 1.0 * degree
    lumbar[:, 1] -= 0.8 * pelvis[:, 1]
    lumbar[:, 0] -= 4 * degree
    chest = wander(generator, time, 3, 0.5) * 1.2 * degree
    chest[:, 0] += person.slouch + breath
    head = wander(generator, time, 3, 0.6) * np.array([3.0, 2.0, 6.0]) * degree
    head[:, 0] += person.gaze - 0.5 * person.slouch
    arms = wander(generator, time, 8, 0.6).reshape(frames, 2, 4) * np.array([3.0, 1.5, 4.0, 3.5]) * degree
    habit = np.column_stack([generator.normal(2, 3, 2), generator.normal(7, 2, 2), generator.normal(15, 8, 2)]) * degree
    arms[..., :3] += habit
    arms[..., 3] += person.elbow
    return Movement(
        person=person,
        generator=generator,
        time=time,
        frame_rate=frame_rate,
        base=np.zeros((frames, 2)),
        heading=np.zeros(frames),
        phase=0.95 * person.cadence * time,
        gait=Gait(stance=SHUFFLE.stance, lift=SHUFFLE.lift, half_width=SHUFFLE.half_width * person.width),
        stagger=generator.normal(0.0, 0.025, 2),
        shift=sway,
        lowering=np.zeros(frames),
        bounce=np.zeros(frames),
        pelvis=pelvis,
        lumbar=lumbar,
        chest=chest,
        head=head,
        arms=arms,
        hands=np.zeros((frames, 2, 3)),
        hand_weights=np.zeros((frames, 2)),
    )


def stand_about(movement: Movement, turns: list[tuple[float, float, float]], roam: float) -> None:
    """Put the body somewhere within `roam` metres of the origin and let it turn there.

    turns: (start, seconds, angle) each; with every turn the body also moves a little. Head and trunk lead the turn.
    """
    generator, time = movement.generator, movement.time
    place = roam * np.sqrt(generator.random()) * _unit(generator)
    movement.base += place
    movement.heading += generator.uniform(-np.pi, np.pi)
    for start, seconds, angle in turns:
        done = minimum_jerk((time - start) / seconds)
        movement.heading += angle * done
        drift = generator.uniform(0.05, 0.25) * _unit(generator) - 0.3 * place
        movement.base += done[:, None] * drift
        place = place + drift
    ahead = np.interp(time + 0.35, time, movement.heading) - movement.heading
    movement.head[:, 2] += 0.8 * ahead
    movement.chest[:, 2] += 0.25 * ahead


def episodes(movement: Movement, seconds: tuple[float, float], pause: tuple[float, float]) -> list[tuple[float, float]]:
    """(start, seconds) of one effort after the other, with pauses, until the recording ends."""
    generator, tempo = movement.generator, movement.person.tempo
    found = []
    start = movement.time[0] + generator.uniform(0.2, 1.5)
    while start < movement.time[-1]:
        length = generator.uniform(*seconds) / tempo
        found.append((start, length))
        start += length + generator.uniform(*pause)
    return found


def swing_arms(movement: Movement, amount: float, elbow: float, bend: float) -> None:
    """Swing each arm against the leg of its side. amount, elbow, bend: angles (swing, mean flexion, its change)."""
    for side in range(len(SIDES)):
        cycle = 2 * np.pi * (movement.phase - 0.5 * side)
        # the arm is furthest back shortly after the leg of its side has landed
        forward = -np.cos(cycle - 0.35)
        movement.arms[:, side, 0] += amount * forward + 0.1 * amount
        movement.arms[:, side, 3] += elbow + bend * forward
        movement.arms[:, side, 2] += 0.25 * amount * forward


def _unit(generator: np.random.Generator) -> np.ndarray:
    angle = generator.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])
