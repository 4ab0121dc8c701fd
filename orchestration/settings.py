"""Settings of a whole run: plain data that can be fingerprinted, sent to workers, stored in a checkpoint and logged."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from posegrid.datasets.occlusions.registry import occlusion_config
from posegrid.datasets.options import from_values, to_values
from posegrid.models.registry import config_class, lifter_class, needs_conditioner, reads_errors
from posegrid.orchestration.recipe_tables import (
    ComputeSettings,
    ConditionerSettings,
    DataSettings,
    EvaluationSettings,
    InitialSettings,
    TrainingSettings,
)


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
    compute: ComputeSettings = field(default_factory=ComputeSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    initial: InitialSettings | None = None
    conditioner: ConditionerSettings | None = None
    upstream: dict[str, Any] | None = None
    """Resolved settings of the conditioner, as plain data; filled in by the plan."""
    upstream_key: str = ""
    """Training fingerprint of a conditioner that is given as a finished run; filled in by the plan."""
    folds: tuple[str, ...] = ()
    """Subjects that one more lifter each was trained without; filled in by the plan."""

    def plain(self) -> dict[str, Any]:
        """As plain data; `Settings.from_plain` is the inverse."""
        return to_values(self)

    @classmethod
    def from_plain(cls, values: dict[str, Any], where: str = "stored settings") -> "Settings":
        """Build and check settings from plain data. Raises ValueError naming the key that is wrong."""
        settings = from_values(cls, values, where)
        model = _named(settings.model, "name", f"{where}, table [model]", _model_values)
        _check_conditioner(model, settings.conditioner, where)
        occlusion = _named(settings.occlusion, "pattern", f"{where}, table [occlusion]", _occlusion_values)
        return replace(settings, model=model, occlusion=occlusion)

    def resolved(self, *, gpu: bool) -> "Settings":
        """The same run with what [compute] comes to for its model, on a GPU or on a CPU."""
        return replace(self, compute=self.compute.resolved(lifter_class(self.model["name"]), gpu=gpu))

    def with_occlusion(self, occlusion: dict[str, Any]) -> "Settings":
        """The same run trained under another pattern."""
        where = f"recipe {self.name}, table [occlusion]"
        return replace(self, occlusion=_named(occlusion, "pattern", where, _occlusion_values))

    def training_fingerprint(self, data_hash: str, upstream: str | None = None) -> str:
        """Identity of what training computes: model, initial weights, windows, pattern, optimisation, conditioner.

        upstream: the conditioner's own, from whoever has it already.
        How it is scored and on how many workers it runs do not enter. Of [compute] the precision enters, and only where
        it is not float32: bfloat16 products lead to other weights, by more than another seed of the rounding would.
        Compiled and fused kernels add up the same float32 numbers in another order, as another number of workers does.
        """
        identity = self.plain()
        if identity.pop("compute")["precision"] == "bf16":
            identity["precision"] = "bf16"
        given = identity.pop("upstream_key")
        for unused in ("name", "evaluation", "conditioner"):
            identity.pop(unused)
        identity.pop("initial")
        if self.initial is not None:
            assert self.initial.digest, "the plan fills it in"
            identity["initial"] = self.initial.digest
        identity["data"].pop("images")  # where files lie
        if identity["data"]["cameras"] == "stored":  # runs made before there was a choice keep their fingerprints
            identity["data"].pop("cameras")
        if not identity["training"]["steps"]:
            identity["training"].pop("steps")
        if identity["upstream"] is not None:
            identity["upstream"] = (
                given or upstream or Settings.from_plain(identity["upstream"]).training_fingerprint(data_hash)
            )
        _drop_unset(identity, "folds")
        _drop_unset(identity["data"], "leave_out")
        for later in ("decay_steps", "large_decay", "large_decay_every", "norm_momentum_end"):
            _drop_unset(identity["training"], later)
        for later, usual in (("beta2", 0.999), ("decay_all", True)):
            if identity["training"][later] == usual:
                identity["training"].pop(later)
        return fingerprint([identity, data_hash])

    def evaluation_fingerprint(self, pattern: dict[str, Any], data_hash: str) -> str:
        """Identity of one scored test pattern, given the weights."""
        return _evaluation_fingerprint(self.evaluation, self.data, json.dumps(pattern), data_hash)

    def leaving_out(self, subject: str) -> "Settings":
        """The same run without a training subject."""
        return replace(self, data=replace(self.data, leave_out=(*self.data.leave_out, subject)))


def fingerprint(plain: Any) -> str:
    """First 16 hexadecimal digits of the sha256 of plain data in canonical JSON."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@lru_cache(maxsize=1024)  # the stages of a study are scored alike
def _evaluation_fingerprint(evaluation: EvaluationSettings, cut: DataSettings, pattern: str, data_hash: str) -> str:
    """`Settings.evaluation_fingerprint` of a pattern as JSON."""
    data = to_values(cut)
    data.pop("leave_out")  # of training subjects
    data.pop("cameras")  # of training windows
    data.pop("images")  # where files lie
    scoring = to_values(evaluation)
    for key, usual in (("aggregation", "mean"), ("sampler", None), ("steps", None), ("eta", None), ("shift", 0)):
        if scoring[key] == usual:  # runs scored before the key existed keep their fingerprints
            scoring.pop(key)
    return fingerprint([scoring, data, json.loads(pattern), data_hash])


def _drop_unset(table: dict[str, Any], key: str) -> None:
    """Runs made before a key existed keep their fingerprints."""
    if not table[key]:
        table.pop(key)


def occlusion_values(pattern: str | dict[str, Any], where: str) -> dict[str, Any]:
    """A pattern name or table, completed with the defaults of its Config."""
    table = {"pattern": pattern} if isinstance(pattern, str) else pattern
    return _named(table, "pattern", where, _occlusion_values)


def occlusion_label(occlusion: dict[str, Any]) -> str:
    """Short name of a resolved pattern; values other than the defaults are added, so that labels are unique."""
    return _occlusion_label(json.dumps(occlusion))


@lru_cache(maxsize=1024)  # a plan asks for each of its few patterns many thousand times
def _occlusion_label(pattern: str) -> str:
    """`occlusion_label` of a pattern as JSON."""
    occlusion = json.loads(pattern)
    name = occlusion["pattern"]
    default = occlusion_values(name, "default")
    default.pop("pattern")
    changed = [f"{key}={occlusion[key]}" for key in sorted(default) if occlusion[key] != default[key]]
    # the label becomes part of metric names, where MLflow allows few signs
    text = " ".join([name, *changed]).replace("=", " ")
    return "".join(sign if sign.isalnum() or sign in "_-. " else "-" for sign in text)


def _model_values(name: str, values: dict[str, Any], where: str) -> dict[str, Any]:
    return to_values(from_values(config_class(name), values, where))


def _check_conditioner(model: dict[str, Any], conditioner: ConditionerSettings | None, where: str) -> None:
    values = {key: value for key, value in model.items() if key != "name"}
    config: Any = from_values(config_class(model["name"]), values, where)
    needed = needs_conditioner(model["name"], config)
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
    if conditioner is not None and conditioner.folds and not reads_errors(model["name"], config):
        raise ValueError(
            f'{where}, table [conditioner]: folds = true is given, but model "{model["name"]}" does not learn from the '
            "errors of its conditioner. Allowed for refiners, such as d3prefiner: remove the key."
        )


def _occlusion_values(name: str, values: dict[str, Any], where: str) -> dict[str, Any]:
    try:
        return to_values(occlusion_config(name, values))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _named(table: dict[str, Any], key: str, where: str, resolve: Any) -> dict[str, Any]:
    if not isinstance(table.get(key), str):
        raise ValueError(f'{where} lacks the key "{key}" (a name).')
    values = {name: value for name, value in table.items() if name != key}
    return to_values({key: table[key], **resolve(table[key], values, where)})
