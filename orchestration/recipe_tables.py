"""The tables of a recipe, as dataclasses that check their values: windows, optimisation, computation, scoring,
conditioner."""

from dataclasses import dataclass
from math import isfinite

from posegrid.datasets.metrics.coherence import CoherenceConfig
from posegrid.datasets.options import unknown
from posegrid.datasets.windows import EDGES, TAILS
from posegrid.models.aggregation import AGGREGATIONS
from posegrid.models.diffusion.chain import Chain
from posegrid.models.interface import Lifter


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
    """Windows at the ends of a sequence. Random training windows: "drop" keeps inside (as DiffHPE), "replicate" centres
    them on any frame and repeats the first and last one. Windows centred by training.grid or evaluation.score always
    repeat. "replicate_grid": as "replicate", but all windows repeat the first and last frame that they show themselves,
    which with a stride lie a little inside (as Uplift and Upsample). `tail` says where test windows lie."""
    cameras: str = "stored"
    """Who films training windows: "stored" cameras, or "random": each window is filmed anew by a camera of Human3.6M
    that is drawn for it, without noise (as Uplift and Upsample's pre-training). Tests have the stored ones."""

    images: str = ""
    """Folder of image files, for models that read pictures; sequences of which the store names no files are drawn. Not
    part of what identifies a run."""
    leave_out: tuple[str, ...] = ()
    """Training subjects whose recordings neither train nor select. A refiner's lifters leave out one each."""

    def __post_init__(self) -> None:
        _positive("frames", self.frames)
        _one_of("tail", self.tail, TAILS)
        _positive("stride", self.stride)
        _within("frame_rate", self.frame_rate, 0)
        _one_of("edges", self.edges, EDGES)
        _one_of("cameras", self.cameras, ("stored", "random"))


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
    beta2: float = 0.999
    """Decay of the average of squared gradients (Adam's second beta)."""
    grid: int = 0
    """0: floor(F/L) windows of a sequence at random starts, fresh in every epoch (DiffHPE). n: a window centred on
    every n-th frame, always the same (VideoPose3D and PoseFormer: 1; MixSTE: the window length)."""
    steps: int = 0
    """Optimisation steps of an epoch. 0: all windows once. n: the first n batches of the epoch's order, for data sets
    that are too large for epochs to be a useful unit (Uplift and Upsample: 6000)."""
    flip: bool = False
    """Train on the mirror image of every window too, as a second copy within the epoch."""
    flip_pairs: bool = False
    """Instead of `flip`: every window is followed by its mirror image within the same batch, with the same mask (Uplift
    and Upsample's within-batch augmentation). The batch counts both."""
    weight_decay: float = 0.0
    """Weight decay."""
    decay_all: bool = True
    """Every weight decays; false: only those of linear layers and convolutions, not norms, biases and embeddings."""
    schedule: str = "constant"
    """"constant", "plateau" (see factor, patience, threshold), "exponential" (see decay and the three after it) or
    "cosine" (to zero)."""
    factor: float = 0.5
    """Plateau: what the learning rate is multiplied by."""
    patience: int = 11
    """Plateau: validations without improvement before the learning rate falls."""
    threshold: float = 0.1
    """Plateau: relative improvement of the best validation loss that counts."""
    decay: float = 0.99
    """Exponential: factor after every epoch, or over `decay_steps`."""
    decay_steps: int = 0
    """Exponential: optimisation steps over which the learning rate falls by `decay`, a little in each (SimpleBaseline).
    0: after every epoch."""
    large_decay: float = 0.0
    """Exponential: factor after every `large_decay_every`-th epoch, in place of `decay` (StridedTransformer,
    STCFormer). With decay = 1 these are the only steps."""
    large_decay_every: int = 0
    """Exponential: epochs from one `large_decay` to the next; 0: never."""
    norm_momentum_end: float = 0.0
    """Momentum that batch norms approach: it falls exponentially over the epochs from the model's own, so that running
    statistics come to rest (VideoPose3D). 0: it stays."""
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
        _within("steps", self.steps, 0)
        _within("decay", self.decay, 0, 1, above=True)
        _within("beta2", self.beta2, 0, 0.999999)
        _within("norm_momentum_end", self.norm_momentum_end, 0, 1)
        for name in ("grid", "decay_steps", "large_decay_every"):
            _within(name, getattr(self, name), 0)
        for name in ("weight_decay", "warmup", "patience", "threshold", "gradient_clip"):
            _within(name, getattr(self, name), 0)
        _one_of("optimizer", self.optimizer, ("adam", "adamw"))
        _one_of("schedule", self.schedule, ("constant", "plateau", "exponential", "cosine"))
        _one_of("select", self.select, ("last", "held_out", "test"))
        _one_of("select_by", self.select_by, ("loss", "mpjpe"))
        if bool(self.large_decay_every) != bool(self.large_decay) or not 0 <= self.large_decay <= 1:
            raise ValueError(
                f"large_decay = {self.large_decay} with large_decay_every = {self.large_decay_every}: allowed are a "
                "factor above 0 and at most 1 with a number of epochs, or 0 and 0. Set both, or neither."
            )
        if self.decay_steps and self.large_decay_every:
            raise ValueError(
                f"decay_steps = {self.decay_steps} with large_decay_every = {self.large_decay_every}: the learning "
                "rate falls with steps or with epochs. Set one of them to 0."
            )
        if self.schedule != "exponential" and (self.decay_steps or self.large_decay_every):
            raise ValueError(
                f'schedule = "{self.schedule}" does not read decay_steps = {self.decay_steps} and large_decay_every = '
                f'{self.large_decay_every}. They need schedule = "exponential": set it, or remove them.'
            )
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
class ComputeSettings:
    """How training steps are computed. Validation and scoring are float32 and not compiled, whatever stands here: no
    figure depends on the machine that scores."""

    precision: str = "auto"
    """"float32"; "bf16": matrix products of bfloat16 numbers (autocast), while weights, sums over them, norms, last
    layers and losses stay float32; "auto": "bf16" on a GPU for models that claim `low_precision`."""
    compile: str = "auto"
    """"on": torch.compile, which takes minutes at the start; "off"; "auto": on for models that claim `compiles`, on a
    GPU."""
    fused: str = "auto"
    """"on": the optimizer updates all weights in one kernel; "off"; "auto": on, as every device that we know has it."""
    micro_batch: int | str = 0
    """Windows that a worker computes at once. 0: its whole share of the batch. n: its share in pieces of at most n,
    whose gradients are added up: less memory, more time, the same batch and results. "auto": its whole share, halved
    until it fits where the device runs out of memory."""

    def __post_init__(self) -> None:
        _one_of("precision", self.precision, ("auto", "float32", "bf16"))
        _one_of("compile", self.compile, ("auto", "on", "off"))
        _one_of("fused", self.fused, ("auto", "on", "off"))
        given = self.micro_batch
        if given != "auto" and (not isinstance(given, int) or isinstance(given, bool) or given < 0):
            raise ValueError(
                f"micro_batch = {given!r}: allowed are 0 (a worker's whole share), a number of windows, and "
                '"auto" (halved when memory runs out). Set one of them.'
            )

    def resolved(self, model: Lifter | type[Lifter], *, gpu: bool) -> "ComputeSettings":
        """What "auto" comes to for a model, on a GPU or on a CPU."""
        low, compiles = gpu and model.low_precision, gpu and model.compiles
        return ComputeSettings(
            precision=self.precision if self.precision != "auto" else "bf16" if low else "float32",
            compile=self.compile if self.compile != "auto" else "on" if compiles else "off",
            fused="off" if self.fused == "off" else "on",
            micro_batch=self.micro_batch,
        )


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How a trained model is scored."""

    hypotheses: int = 5
    """Poses sampled for each window, of which `aggregation` makes one; regressors give one."""
    batch: int = 256
    """Windows in an evaluation step, over all workers."""
    every: int = 1
    """Score every n-th test window; above 1 only for demonstrations (the run is tagged)."""
    score: str = "window"
    """"window": all frames of non-overlapping windows (MixSTE, DiffHPE, D3DP). "centre": every frame from the window
    that is centred on it, L times the work (VideoPose3D, PoseFormer, STCFormer, Uplift and Upsample). "overlap": the
    windows of "window" under the same masks, each frame as the mean over all windows that show it."""
    shift: int = 0
    """With score = "overlap": frames of a window from its start to the next one's; 0: half a window."""
    lift_every: int = 1
    """With score = "centre": lift every n-th frame of a sequence and interpolate between them linearly in time."""
    flip: bool = False
    """Average with the un-mirrored result of the mirrored input (DiffHPE does not, most others do). Of a
    diffusion model this averages two chains, which narrows the spread of hypotheses; D3DP has a flip of its own."""
    aggregation: str = "mean"
    """How the hypotheses become the scored pose: "mean", "median" (geometric, of each joint), "jpma_..." or "ppma_..."
    (D3DP's choice of joints or poses by reprojection, with "..._true_root", as released, or "..._fitted_root", which
    reads no truth), or a bound that reads the truth: "best_joint_oracle", "best_pose_oracle", "best_window_oracle"."""
    sampler: str | None = None
    """Sampler of a diffusion model: "ddpm", "ddim" or "dpm_solver"; none given: the model's own."""
    steps: int | None = None
    """Evaluations of its network for each hypothesis; none given: the model's own number; 0: all of its training."""
    eta: float | None = None
    """With sampler "ddim": 0 adds no noise on the way, 1 as much as "ddpm"; none given: the model's own."""
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
        _one_of("score", self.score, ("window", "centre", "overlap"))
        _within("shift", self.shift, 0)
        if self.shift and self.score != "overlap":
            raise ValueError(
                f'shift = {self.shift} needs score = "overlap", but score = "{self.score}" does not lift overlapping '
                'windows. Set score = "overlap", or shift = 0.'
            )
        _one_of("aggregation", self.aggregation, tuple(AGGREGATIONS))
        if self.lift_every > 1 and self.score != "centre":
            raise ValueError(
                f'lift_every = {self.lift_every} needs score = "centre", but score = "{self.score}" lifts whole '
                'windows. Set score = "centre", or lift_every = 1.'
            )
        # these two refuse values that they do not know
        Chain(sampler=self.sampler or "ddpm", steps=self.steps or 0, eta=self.eta or 0.0)
        CoherenceConfig(shoulder_parent=self.shoulder_parent, ddof=self.ddof)


@dataclass(frozen=True, kw_only=True)
class ConditionerSettings:
    """The frozen lifter that a wrapper is conditioned on or that a refiner refines; trained first, as its own run."""

    recipe: str = ""
    """Recipe of the lifter."""
    run: str = ""
    """Finished run to take instead of training the recipe: its run id or its name, such as "mixste_27 on none". The
    pattern is then the one that it was trained with, whatever `occlusion` says."""
    occlusion: str = "same"
    """Pattern the lifter is trained with: "same" as the wrapper, or "none" (DiffHPE's vanilla conditioner)."""
    folds: bool = False
    """For a refiner: train the lifter once more for each training subject, without it. What these return for the
    subject that they have not seen is what the refiner learns from; without them it is what the lifter returns for
    people it was trained on, whose errors are smaller."""

    def __post_init__(self) -> None:
        _one_of("occlusion", self.occlusion, ("same", "none"))
        if not self.recipe and not self.run:
            raise ValueError(
                'neither recipe nor run is given, so there is no lifter. Allowed is recipe = "NAME" or run = "ID" of a '
                "finished run: add one."
            )


@dataclass(frozen=True, kw_only=True)
class InitialSettings:
    """Weights that training starts from, in place of random ones."""

    source: str
    """Run id of a trained run, or path of a model file (model.pt) that all nodes read."""
    part: str = ""
    """Empty: the whole network. "encoder": the image encoder alone; the source is then a checkpoint of a ViTPose as its
    authors released it, a file that all nodes read."""
    digest: str = ""
    """sha256 of the weights, which identifies them; filled in by the plan."""
    key: str = ""
    """Training fingerprint of the run they come from, empty for a file; filled in by the plan."""

    def __post_init__(self) -> None:
        _one_of("part", self.part, ("", "encoder"))


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
