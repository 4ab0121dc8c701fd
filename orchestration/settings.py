"""Settings of a whole run: dataclasses, TOML loading, overrides, plain data, fingerprint.

One TOML file is one run: no inheritance, no interpolation. The resolved settings are plain data, so that they can be
fingerprinted, sent to workers, stored in a checkpoint and logged.
"""

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

from posegrid.datasets.metrics.coherence import CoherenceConfig
from posegrid.datasets.occlusions.registry import occlusion_config
from posegrid.datasets.options import from_values, unknown
from posegrid.datasets.windows import EDGES, TAILS
from posegrid.models.registry import config_class, needs_conditioner


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """How windows are cut."""

    frames: int = 27
    """Window length in frames."""
    tail: str = "drop"
    """What happens to the frames after the last whole test window: "drop" (as DiffHPE), "keep" (one more window, of
    which the new frames count) or "overlap" (one more window, all of which counts, as MixSTE)."""
    stride: int = 1
    """Frames from one frame of a window to the next: above 1 a window covers more time. Tests still score every frame,
    in interleaved windows."""
    frame_rate: float = 0.0
    """Frames per second that windows have; every stored rate must be a whole multiple of it. 0: as stored."""
    edges: str = "drop"
    """Training windows at the ends of a sequence: "drop" keeps inside (as DiffHPE), "replicate" centres windows on any
    frame and repeats the first and last one. `tail` rules test windows."""

    def __post_init__(self) -> None:
        _positive("frames", self.frames)
        _one_of("tail", self.tail, TAILS)
        _positive("stride", self.stride)
        _within("frame_rate", self.frame_rate, 0)
        _one_of("edges", self.edges, EDGES)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Optimisation."""

    epochs: int
    """Passes over the training windows."""
    batch: int
    """Windows in an optimisation step, over all workers."""
    lr: float
    """Learning rate at the start."""
    optimizer: str = "adam"
    """"adam" (weight decay enters the gradient) or "adamw" (decoupled)."""
    amsgrad: bool = False
    """Divide by the largest second moment so far (VideoPose3D, STCFormer)."""
    grid: int = 0
    """0: floor(F/L) windows of a sequence at random starts, fresh in every epoch (DiffHPE). n: a window centred on
    every n-th frame, always the same (VideoPose3D and PoseFormer: 1; MixSTE: the window length)."""
    flip: bool = False
    """Train on the mirror image of every window too, as a second copy within the epoch."""
    flip_pairs: bool = False
    """Instead of `flip`: every window is followed by its mirror image within the same batch, with the same mask (Uplift
    and Upsample's within-batch augmentation). The batch counts both."""
    weight_decay: float = 0.0
    """Weight decay."""
    schedule: str = "constant"
    """"constant", "plateau" (see factor, patience, threshold), "exponential" (see decay) or "cosine" (to zero)."""
    factor: float = 0.5
    """Plateau: what the learning rate is multiplied by."""
    patience: int = 11
    """Plateau: validations without improvement before the learning rate falls."""
    threshold: float = 0.1
    """Plateau: relative improvement of the best validation loss that counts."""
    decay: float = 0.99
    """Exponential: factor after every epoch."""
    warmup: int = 0
    """Steps over which the learning rate rises from zero."""
    gradient_clip: float = 0.0
    """Largest gradient norm; 0 does not clip."""
    ema: float = 0.0
    """Decay of the exponential moving average of the weights that is evaluated; 0 keeps none."""
    seed: int = 0
    """Seed of initial weights, windows, masks and noise."""
    validate_every: int = 1
    """Epochs between validations; the last epoch always validates."""
    select: str = "held_out"
    """Which weights are kept: "last" epoch, best on "held_out" recordings, or best on the "test" subjects.

    "test" is what the papers do; it is tagged on the run, because the test figure is then optimistic."""
    select_by: str = "loss"
    """What selects: "loss" (the training loss) or "mpjpe" (one hypothesis)."""
    checkpoint_every: int = 1
    """Epochs between whole-state checkpoints; the last epoch always saves."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "validate_every", "checkpoint_every"):
            _positive(name, getattr(self, name))
        _within("lr", self.lr, 0, above=True)
        _within("ema", self.ema, 0, 0.999999)
        _within("factor", self.factor, 0, 1)
        _within("decay", self.decay, 0, 1, above=True)
        _within("grid", self.grid, 0)
        for name in ("weight_decay", "warmup", "patience", "threshold", "gradient_clip"):
            _within(name, getattr(self, name), 0)
        _one_of("optimizer", self.optimizer, ("adam", "adamw"))
        _one_of("schedule", self.schedule, ("constant", "plateau", "exponential", "cosine"))
        _one_of("select", self.select, ("last", "held_out", "test"))
        _one_of("select_by", self.select_by, ("loss", "mpjpe"))
        if self.flip_pairs and (self.flip or self.batch % 2):
            raise ValueError(
                f"flip_pairs = true with flip = {str(self.flip).lower()} and batch = {self.batch}: pairs need an even "
                "batch, and are instead of flip. Set flip = false and an even batch, or flip_pairs = false."
            )
        if self.schedule == "plateau" and self.select == "last":
            raise ValueError(
                'schedule = "plateau" follows the validation loss, but select = "last" does not validate. '
                'Set select = "held_out", or another schedule.'
            )


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How a trained model is scored."""

    hypotheses: int = 5
    """Poses sampled for each window and averaged; regressors give one."""
    batch: int = 256
    """Windows in an evaluation step, over all workers."""
    every: int = 1
    """Score every n-th test window; above 1 only for demonstrations (the run is tagged)."""
    score: str = "window"
    """"window": all frames of non-overlapping windows (MixSTE, DiffHPE, D3DP). "centre": every frame from the window
    that is centred on it, L times the work (VideoPose3D, PoseFormer, STCFormer, Uplift and Upsample)."""
    lift_every: int = 1
    """With score = "centre": lift every n-th frame of a sequence and interpolate between them linearly in time."""
    flip: bool = False
    """Average with the un-mirrored result of the mirrored input (DiffHPE does not, most others do)."""
    seed: int = 0
    """Seed of the test masks and of sampling; masks depend on (seed, sequence, window start) alone."""
    zero_root: bool = False
    """Set the predicted root to zero before scoring (DiffHPE and MixSTE leave it as it is)."""
    shoulder_parent: str = "Spine"
    """Joint on which the coherence metrics hang the shoulders: "Spine" as published, "Thorax" anatomically."""
    ddof: int = 1
    """Segment deviation divides by L - ddof: 1 as in the released code, 0 as in the paper's equation 14."""

    def __post_init__(self) -> None:
        for name in ("hypotheses", "batch", "every", "lift_every"):
            _positive(name, getattr(self, name))
        _one_of("score", self.score, ("window", "centre"))
        if self.lift_every > 1 and self.score != "centre":
            raise ValueError(
                f'lift_every = {self.lift_every} needs score = "centre", but score = "{self.score}" lifts whole '
                'windows. Set score = "centre", or lift_every = 1.'
            )
        CoherenceConfig(shoulder_parent=self.shoulder_parent, ddof=self.ddof)  # refuses what it does not know


@dataclass(frozen=True, kw_only=True)
class ConditionerSettings:
    """The frozen lifter that a wrapper is conditioned on; trained first, as a run of its own."""

    recipe: str
    """Recipe of the lifter."""
    occlusion: str = "same"
    """Pattern the lifter is trained with: "same" as the wrapper, or "none" (DiffHPE's vanilla conditioner)."""

    def __post_init__(self) -> None:
        _one_of("occlusion", self.occlusion, ("same", "none"))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides what a run computes."""

    name: str
    """Recipe name."""
    model: dict[str, Any]
    """"name" of the model and all values of its Config."""
    training: TrainingSettings
    data: DataSettings = field(default_factory=DataSettings)
    occlusion: dict[str, Any] = field(default_factory=lambda: {"pattern": "none"})
    """"pattern" and all values of its Config, applied to the training windows."""
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    conditioner: ConditionerSettings | None = None
    upstream: dict[str, Any] | None = None
    """Resolved settings of the conditioner, as plain data; filled in by the plan."""

    def plain(self) -> dict[str, Any]:
        """As plain data; `Settings.from_plain` is the inverse."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_plain(cls, values: dict[str, Any], where: str = "stored settings") -> "Settings":
        """Build and check settings from plain data. Raises ValueError naming the key that is wrong."""
        settings = from_values(cls, values, where)
        model = _named(settings.model, "name", f"{where}, table [model]", _model_values)
        _check_conditioner(model, settings.conditioner, where)
        occlusion = _named(settings.occlusion, "pattern", f"{where}, table [occlusion]", _occlusion_values)
        return replace(settings, model=model, occlusion=occlusion)

    def with_occlusion(self, occlusion: dict[str, Any]) -> "Settings":
        """The same run trained under another pattern."""
        return Settings.from_plain({**self.plain(), "occlusion": occlusion}, f"recipe {self.name}")

    def training_fingerprint(self, data_hash: str) -> str:
        """Identity of what training computes: model, windows, pattern, optimisation, conditioner and data.

        How it is scored and on how many workers it runs do not enter.
        """
        identity = self.plain()
        for unused in ("name", "evaluation", "conditioner"):
            identity.pop(unused)
        if identity["upstream"] is not None:
            identity["upstream"] = Settings.from_plain(identity["upstream"]).training_fingerprint(data_hash)
        return fingerprint([identity, data_hash])

    def evaluation_fingerprint(self, pattern: dict[str, Any], data_hash: str) -> str:
        """Identity of one scored test pattern, given the weights."""
        return fingerprint([asdict(self.evaluation), asdict(self.data), pattern, data_hash])


def fingerprint(plain: Any) -> str:
    """First 16 hexadecimal digits of the sha256 of plain data in canonical JSON."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_recipe(file: Path, overrides: list[str] | None = None) -> Settings:
    """Read a recipe and apply overrides such as "training.lr=2e-4".

    Raises ValueError for unreadable TOML, an unknown or mistyped key, or a value out of range.
    """
    values = read_toml(file)
    for override in overrides or []:
        _override(values, override)
    return Settings.from_plain({"name": file.stem, **values}, f"recipes/{file.name}")


def parse_overrides(overrides: list[str]) -> dict[str, Any]:
    """Values given on the command line, such as "seed=3", as a nested table."""
    values: dict[str, Any] = {}
    for override in overrides:
        _override(values, override)
    return values


def read_toml(file: Path) -> dict[str, Any]:
    """Read a TOML file. Raises ValueError with the line of the fault."""
    try:
        return tomllib.loads(file.read_text())
    except FileNotFoundError:
        raise ValueError(f"{file} does not exist.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not valid TOML: {error}.") from None


def occlusion_values(pattern: str | dict[str, Any], where: str) -> dict[str, Any]:
    """A pattern name or table, completed with the defaults of its Config."""
    table = {"pattern": pattern} if isinstance(pattern, str) else pattern
    return _named(table, "pattern", where, _occlusion_values)


def occlusion_label(occlusion: dict[str, Any]) -> str:
    """Short name of a resolved pattern; values other than the defaults are added, so that labels are unique."""
    name = occlusion["pattern"]
    default = occlusion_values(name, "default")
    default.pop("pattern")
    changed = [f"{key}={occlusion[key]}" for key in sorted(default) if occlusion[key] != default[key]]
    # the label becomes part of metric names, where MLflow allows few signs
    text = " ".join([name, *changed]).replace("=", " ")
    return "".join(sign if sign.isalnum() or sign in "_-. " else "-" for sign in text)


def _model_values(name: str, values: dict[str, Any], where: str) -> dict[str, Any]:
    return asdict(from_values(config_class(name), values, where))


def _check_conditioner(model: dict[str, Any], conditioner: ConditionerSettings | None, where: str) -> None:
    values = {key: value for key, value in model.items() if key != "name"}
    needed = needs_conditioner(model["name"], from_values(config_class(model["name"]), values, where))
    if needed and conditioner is None:
        raise ValueError(
            f'{where}: model "{model["name"]}" with these settings is conditioned on a lifter, but there is no table '
            '[conditioner]. Add it with recipe = "NAME" of a lifter.'
        )
    if not needed and conditioner is not None:
        raise ValueError(
            f'{where}: table [conditioner] is given, but model "{model["name"]}" with these settings does not use one. '
            "Remove the table or change the model's conditioning."
        )


def _occlusion_values(name: str, values: dict[str, Any], where: str) -> dict[str, Any]:
    try:
        return asdict(occlusion_config(name, values))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _named(table: dict[str, Any], key: str, where: str, resolve: Any) -> dict[str, Any]:
    if not isinstance(table.get(key), str):
        raise ValueError(f'{where} lacks the key "{key}" (a name).')
    values = {name: value for name, value in table.items() if name != key}
    return json.loads(json.dumps({key: table[key], **resolve(table[key], values, where)}))


def _override(values: dict[str, Any], text: str) -> None:
    path, separator, value = text.partition("=")
    if not separator or not path.strip():
        raise ValueError(f'override "{text}" is not of the form key=value, for instance training.lr=2e-4.')
    *tables, key = path.strip().split(".")
    at = values
    for table in tables:
        at = at.setdefault(table, {})
        if not isinstance(at, dict):
            raise ValueError(f'override "{text}": {table} is a value, not a table.')
    try:
        at[key] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        at[key] = value.strip()  # a bare word is a string: --set training.schedule=cosine


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} = {value} must be at least 1.")


def _within(name: str, value: float, low: float, high: float | None = None, *, above: bool = False) -> None:
    enough = low < value if above else low <= value
    if not enough or not isfinite(value) or (high is not None and value > high):
        limit = "" if high is None else f" and at most {high:g}"
        raise ValueError(f"{name} = {value} must be {'above' if above else 'at least'} {low:g}{limit}.")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise unknown("value", value, f"key {name}", list(allowed))
