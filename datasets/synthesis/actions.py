"""The movements themselves: each function turns a person at rest into one who walks, runs, squats, reaches, ...

Amplitudes and timings are plausible values of ours, with the variation between people and repetitions that makes every
recording different; they are not fitted to measurements. Angles are written in degrees and converted where used.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from posegrid.datasets.synthesis.body import SIDES
from posegrid.datasets.synthesis.curves import floor_path, pulse, smoothed, wander
from posegrid.datasets.synthesis.movement import (
    Movement,
    Person,
    at_rest,
    episodes,
    stand_about,
    swing_arms,
)  # fmt: skip
from posegrid.datasets.synthesis.stepping import RUN, WALK, Gait

_DEGREE = np.radians(1.0)
_GRAVITY = 9.81
_MARGIN_SECONDS = 2.0
"""Made before and after what is kept, so that no recording begins or ends in a half step."""


def perform(action: str, person: Person, generator: np.random.Generator, frames: int, frame_rate: float) -> np.ndarray:
    """(F, 17, 3) world positions of one recording around the origin, metres, z up, floor at 0."""
    margin = round(_MARGIN_SECONDS * frame_rate)
    time = np.arange(-margin, frames + margin) / frame_rate
    movement = at_rest(person, generator, time, frame_rate)
    ACTIONS[action](movement)
    return movement.positions()[margin : margin + frames]


def walk(movement: Movement) -> None:
    """Walking along a circle, a figure of eight or an irregular loop, with changing speed."""
    generator, person = movement.generator, movement.person
    speed = (
        1.1
        * person.cadence
        * generator.uniform(0.88, 1.12)
        * (1 + 0.06 * wander(generator, movement.time, 1, 0.2)[:, 0])
    )
    kind = ("circle", "eight", "loop")[generator.integers(3)]
    _travel(movement, kind, generator.uniform(1.2, 1.45), speed, 1.22, WALK)
    movement.straightness = 0.975
    swing_arms(movement, 19 * _DEGREE * person.swing, 2 * _DEGREE, 9 * _DEGREE * person.swing)
    movement.bow((2.0 + 3.0 * generator.random()) * _DEGREE * np.ones_like(movement.time))


def run(movement: Movement) -> None:
    """Jogging along a circle or loop, leaning into the bend."""
    generator, person = movement.generator, movement.person
    speed = (
        2.1 * person.cadence * generator.uniform(0.9, 1.1) * (1 + 0.05 * wander(generator, movement.time, 1, 0.2)[:, 0])
    )
    kind = ("circle", "loop")[generator.integers(2)]
    _travel(movement, kind, generator.uniform(1.3, 1.5), speed, 1.62, RUN)
    movement.straightness = 0.955
    movement.bounce += 0.02 * np.cos(4 * np.pi * (movement.phase - RUN.stance / 2 - 0.25))
    swing_arms(movement, 30 * _DEGREE * person.swing**0.5, 62 * _DEGREE, 14 * _DEGREE)
    movement.arms[..., 1] += 9 * _DEGREE
    movement.arms[..., 2] += 12 * _DEGREE
    movement.bow(generator.uniform(7.0, 13.0) * _DEGREE * np.ones_like(movement.time))


def squat(movement: Movement) -> None:
    """Repeated squats of varying depth, arms stretched forward for balance or held at the chest."""
    generator, time = movement.generator, movement.time
    stand_about(movement, [], roam=0.9)
    movement.gait = replace(movement.gait, half_width=movement.gait.half_width * generator.uniform(1.2, 1.7))
    stretched = generator.random() < 0.6
    for start, seconds in episodes(movement, (2.0, 3.4), (0.2, 1.2)):
        depth = generator.uniform(0.55, 1.0)
        down, hold = seconds * generator.uniform(0.38, 0.46), seconds * generator.uniform(0.02, 0.12)
        bent = pulse(time, start, down, hold, seconds - down - hold)
        movement.lowering += 0.42 * depth * bent
        movement.shift[:, 0] -= 0.20 * depth * bent
        movement.bow(44 * _DEGREE * depth * bent)
        raised = pulse(time, start - 0.1, down, hold + 0.1, seconds - down - hold)
        flexion, elbow, inward = (95, 2, 10) if stretched else (38, 105, 45)
        movement.arms[..., 0] += flexion * _DEGREE * raised[:, None]
        movement.arms[..., 3] += elbow * _DEGREE * raised[:, None]
        movement.arms[..., 2] += inward * _DEGREE * raised[:, None]


def reach(movement: Movement) -> None:
    """One hand or both go to points around the body, from near the floor to above the head."""
    generator, person, time = movement.generator, movement.person, movement.time
    efforts = episodes(movement, (1.8, 3.2), (0.1, 0.9))
    turns = [(start - 0.6, 1.6, generator.normal(0, 60) * _DEGREE) for start, _ in efforts[1::2]]
    stand_about(movement, turns, roam=0.8)
    body = person.body
    for start, seconds in efforts:
        side = person.main_hand if generator.random() < 0.7 else 1 - person.main_hand
        height = generator.uniform(0.12, 1.12) * body.height
        aside = generator.uniform(-15, 70) * _DEGREE * SIDES[side]
        distance = generator.uniform(0.28, 0.44) * body.height
        target = np.array([distance * np.cos(aside), distance * np.sin(aside), height])
        rise, hold = seconds * generator.uniform(0.35, 0.45), seconds * generator.uniform(0.05, 0.2)
        going = pulse(time, start, rise, hold, seconds - rise - hold)
        # hips and trunk start before the hand, and the trunk bends the more the lower the target is
        leading = pulse(time, start - 0.12, rise, hold + 0.1, seconds - rise - hold)
        low = np.clip((0.62 * body.height - height) / (0.5 * body.height), 0.0, 1.0)
        hands = [side]
        if generator.random() < 0.25:
            hands, aside, target = [0, 1], 0.0, np.array([distance, 0.0, height])
        for hand in hands:
            apart = np.array([0.0, 0.12 * SIDES[hand] * (len(hands) - 1), 0.0])
            movement.hands[:, hand] += going[:, None] * (target + apart)
            movement.hand_weights[:, hand] += going
        movement.bow((6 + 62 * low) * _DEGREE * leading)
        movement.lowering += 0.22 * low * leading
        movement.shift[:, 0] += (0.02 - 0.13 * low) * leading
        movement.shift[:, 1] += 0.05 * np.sin(aside) * leading
        movement.lumbar[:, 2] += 0.18 * aside * leading
        movement.chest[:, 2] += 0.22 * aside * leading
        movement.head[:, 2] += 0.25 * aside * leading
        movement.head[:, 0] += (16 * low - 14 * np.clip(height / body.height - 0.9, 0, 1)) * _DEGREE * leading
    # overlapping efforts of one hand: the target is their average
    weight = movement.hand_weights[..., None]
    movement.hands /= np.maximum(weight, 1e-6)
    movement.hand_weights = np.minimum(movement.hand_weights, 1.0)


def wave(movement: Movement) -> None:
    """Waving with one hand or both, beckoning, and turning to somebody else."""
    generator, person, time = movement.generator, movement.person, movement.time
    efforts = episodes(movement, (2.4, 4.2), (0.3, 1.2))
    turns = [
        (start - 0.9, 1.5, generator.normal(0, 70) * _DEGREE) for start, _ in efforts[1:] if generator.random() < 0.6
    ]
    stand_about(movement, turns, roam=0.9)
    for start, seconds in efforts:
        both = generator.random() < 0.25
        side = person.main_hand if generator.random() < 0.75 else 1 - person.main_hand
        # shoulder flexion, abduction, inward rotation, elbow flexion on top of the hanging arm
        raised = generator.normal([25, 78, -70, 75], [12, 14, 8, 14]) * _DEGREE
        if both or generator.random() < 0.3:
            raised = generator.normal([25, 130, -40, 30], [10, 12, 10, 10]) * _DEGREE
        up = pulse(time, start, 0.8 / person.tempo, seconds - 1.6, 0.9 / person.tempo)
        beat = 2 * np.pi * generator.uniform(1.3, 2.1) * person.tempo * time + generator.uniform(0, 2 * np.pi)
        size = generator.uniform(14, 26) * _DEGREE * smoothed(up, 0.1 * movement.frame_rate)
        for hand in (0, 1) if both else (side,):
            movement.arms[:, hand] += up[:, None] * raised
            movement.arms[:, hand, 2] += size * np.sin(beat)
            movement.arms[:, hand, 1] += 0.3 * size * np.sin(beat + 0.5)
            movement.arms[:, hand, 3] += 0.35 * size * np.sin(beat + 0.9)
        lean = 0.0 if both else SIDES[side]
        movement.lumbar[:, 1] += 3 * _DEGREE * lean * up
        movement.shift[:, 1] -= 0.02 * lean * up
        movement.chest[:, 2] -= 5 * _DEGREE * lean * up


def turn(movement: Movement) -> None:
    """Looking round and turning on the spot, by a little or right about, arms swinging loosely."""
    generator, person, time = movement.generator, movement.person, movement.time
    turns = []
    for start, _ in episodes(movement, (1.9, 2.6), (0.2, 1.0)):
        angle = generator.choice([-1, 1]) * generator.uniform(40, 180) * _DEGREE
        turns.append((start, (0.7 + abs(angle) / 2.4) / person.tempo, angle))
    stand_about(movement, turns, roam=0.8)
    rate = np.gradient(movement.heading, time)
    loose = smoothed(np.abs(rate), 0.15 * movement.frame_rate)
    for side, sign in enumerate(SIDES):
        # the arms trail behind the turning trunk
        movement.arms[:, side, 0] -= 0.10 * sign * np.interp(time - 0.15, time, rate)
        movement.arms[:, side, 1] += 0.05 * loose
    movement.bounce += 0.006 * np.sin(4 * np.pi * movement.phase) * np.minimum(loose, 1.0)


def sit(movement: Movement) -> None:
    """Sitting down on a chair, sitting with hands on the thighs or gesturing, getting up."""
    generator, person, time = movement.generator, movement.person, movement.time
    stand_about(movement, [], roam=0.8)
    body = person.body
    seat = generator.uniform(0.26, 0.285) * body.height
    standing = body.ankle_height + 0.993 * (body.thigh + body.shank)
    tall = seat + 0.045 * body.height
    start = time[0] + generator.uniform(-3.0, 3.5)
    while start < time[-1]:
        down, hold, up = generator.uniform(1.3, 2.0), generator.uniform(3.0, 6.0), generator.uniform(1.2, 1.8)
        down, up = down / person.tempo, up / person.tempo
        seated = pulse(time, start, down, hold, up)
        movement.lowering += (1 - tall / standing) * seated
        movement.shift[:, 0] -= 0.235 * body.height * seated
        # the trunk swings forward while the weight leaves or meets the seat
        movement.bow(34 * _DEGREE * pulse(time, start, 0.7 * down, 0.0, 0.55 * down))
        movement.bow(38 * _DEGREE * pulse(time, start + down + hold - 0.45 * up, 0.6 * up, 0.0, 0.8 * up))
        movement.pelvis[:, 0] -= 9 * _DEGREE * seated
        movement.lumbar[:, 0] += 10 * _DEGREE * seated
        _hands_while_seated(movement, start + 0.6 * down, 0.5 * down, hold, tall)
        start += down + hold + up + generator.uniform(1.0, 2.5)
    movement.hands /= np.maximum(movement.hand_weights[..., None], 1e-6)
    movement.hand_weights = np.minimum(movement.hand_weights, 1.0)


def _hands_while_seated(movement: Movement, start: float, rise: float, hold: float, hip_height: float) -> None:
    generator, time, body = movement.generator, movement.time, movement.person.body
    resting = pulse(time, start, rise, hold, 0.7)
    gestures = generator.random(2) < 0.5
    for hand, sign in enumerate(SIDES):
        along = generator.uniform(0.45, 0.75) * body.thigh
        thigh = np.array([along - 0.235 * body.height, 0.08 * sign * body.height, hip_height + 0.05 * body.height])
        point = thigh + 0.008 * wander(generator, time, 3, 0.4)
        if gestures[hand]:
            lively = pulse(time, start + 0.5, 0.6, hold - 1.2, 0.6)[:, None]
            point = point + lively * (np.array([0.06, 0.05 * sign, 0.13]) + 0.055 * wander(generator, time, 3, 1.1))
        movement.hands[:, hand] += resting[:, None] * point
        movement.hand_weights[:, hand] += resting


def _travel(movement: Movement, kind: str, radius: float, speed: np.ndarray, stride: float, gait: Gait) -> None:
    """Walk or run along a path. speed: (F,) m/s. stride: metres of a stride at 1.2 m/s (2.1 running), height 1.75 m."""
    generator, person, rate = movement.generator, movement.person, movement.frame_rate
    path = floor_path(generator, kind, radius)
    distance = path.distance(np.cumsum(speed) / rate + generator.uniform(0, path.efforts[-1]))
    speed = np.gradient(distance) * rate
    usual = 2.1 if gait.stance < 0.5 else 1.2
    length = stride * np.sqrt(speed / usual) * person.body.height / 1.75 / person.cadence
    movement.base = path.at(distance)
    movement.heading = smoothed(path.heading(distance), 0.08 * rate)
    movement.phase = np.cumsum(speed / length) / rate + generator.random()
    movement.gait = replace(gait, half_width=gait.half_width * person.width)
    movement.stagger = np.zeros(2)

    # a moving body leans into the bend so that gravity and centripetal force add up along it
    bend = np.gradient(movement.heading) * rate
    lean = 0.8 * np.arctan(speed * bend / _GRAVITY)
    movement.pelvis[:, 1] -= 0.9 * lean
    movement.shift[:, 1] += (person.body.thigh + person.body.shank) * np.sin(lean)
    movement.head[:, 1] += 0.5 * lean
    movement.head[:, 2] += 0.25 * bend
    movement.chest[:, 2] += 0.06 * bend

    cycle = 2 * np.pi * movement.phase
    big = person.sway * (1.0 if gait.stance > 0.5 else 1.2)
    # the left hip is ahead when the left foot lands; the trunk turns against it
    movement.pelvis[:, 2] -= 5 * _DEGREE * big * np.cos(cycle)
    movement.lumbar[:, 2] += 4 * _DEGREE * big * np.cos(cycle)
    movement.chest[:, 2] += 6 * _DEGREE * big * np.cos(cycle)
    movement.head[:, 2] -= 4 * _DEGREE * big * np.cos(cycle)
    # the hip of the swinging leg drops; the trunk stays upright above it
    drop = 3.5 * _DEGREE * big * np.cos(cycle - 2 * np.pi * 0.15)
    movement.pelvis[:, 1] += drop
    movement.lumbar[:, 1] -= 0.7 * drop
    movement.shift[:, 1] += 0.022 * big * np.cos(cycle - 2 * np.pi * gait.stance / 2)
    movement.shift[:, 0] += 0.008 * np.sin(2 * cycle)
    movement.pelvis[:, 0] += (4.0 + 1.5 * np.sin(2 * cycle)) * _DEGREE


ACTIONS: dict[str, Callable[[Movement], None]] = {
    "reach": reach, "run": run, "sit": sit, "squat": squat, "turn": turn, "walk": walk, "wave": wave,
}  # fmt: skip
"""Name -> movement."""
