"""How weights move: the optimizer, its learning rate over steps, epochs and validations, momenta of batch norms."""

from math import cos, pi
from typing import Any

import torch
from torch import nn

from posegrid.orchestration.recipe_tables import TrainingSettings


def make_optimizer(training: TrainingSettings, model: nn.Module, *, fused: bool) -> torch.optim.Optimizer:
    """The recipe's optimizer of all weights that train."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[training.optimizer]
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups: list[dict[str, Any]] = [{"params": weights}]
    if not training.decay_all:
        decay = {id(module.weight) for module in model.modules() if isinstance(module, _DECAYING)}
        groups = [
            {"params": [weight for weight in weights if id(weight) in decay]},
            {"params": [weight for weight in weights if id(weight) not in decay], "weight_decay": 0.0},
        ]
    return kind(
        [group for group in groups if group["params"]],
        lr=training.lr,
        betas=(0.9, training.beta2),
        weight_decay=training.weight_decay,
        amsgrad=training.amsgrad,
        fused=fused,
    )


_DECAYING = (nn.Linear, nn.Conv1d, nn.Conv2d)
"""Layers whose weights decay where not all do; norms, biases, embeddings and single parameters are the rest."""


def set_norm_momentum(own: dict[nn.BatchNorm1d, float | None], training: TrainingSettings, epoch: int) -> None:
    """Move each norm's momentum from its own towards the last one, m0 (m1 / m0)^(epoch / epochs), as in VideoPose3D."""
    for norm, first in own.items() if training.norm_momentum_end else ():
        assert first is not None
        norm.momentum = first * (training.norm_momentum_end / first) ** (epoch / training.epochs)


class Schedule:
    """Learning rate over steps, epochs and validations."""

    def __init__(self, training: TrainingSettings, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> None:
        self._training = training
        self._optimizer = optimizer
        self._total = training.epochs * steps_per_epoch
        self.steps = 0
        self._factor = 1.0
        self._plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=training.factor, patience=training.patience, threshold=training.threshold
        )

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""
        return float(self._optimizer.param_groups[0]["lr"])

    def before_step(self) -> None:
        training = self._training
        if training.schedule == "plateau":
            base = self._factor * training.lr
        elif training.schedule == "cosine":
            base = training.lr * 0.5 * (1 + cos(pi * self.steps / self._total))
        elif training.decay_steps:
            base = training.lr * training.decay ** (self.steps / training.decay_steps)
        else:
            base = self._factor * training.lr
        warm = min(1.0, (self.steps + 1) / training.warmup) if training.warmup else 1.0
        for group in self._optimizer.param_groups:
            group["lr"] = base * warm
        self.steps += 1

    def after_validation(self, best_loss: float) -> None:
        """Plateau: stepped with the best loss so far, as DiffHPE's released code does."""
        if self._training.schedule != "plateau":
            return
        for group in self._optimizer.param_groups:
            group["lr"] = self._factor * self._training.lr
        self._plateau.step(best_loss)
        self._factor = self.lr / self._training.lr

    def after_epoch(self, epoch: int) -> None:
        training = self._training
        if training.schedule == "exponential":
            large = training.large_decay_every and (epoch + 1) % training.large_decay_every == 0
            self._factor *= training.large_decay if large else training.decay

    def plain(self) -> dict[str, Any]:
        plateau = {key: value for key, value in self._plateau.state_dict().items() if isinstance(value, int | float)}
        return {"steps": self.steps, "factor": self._factor, "plateau": plateau}

    def load(self, plain: dict[str, Any]) -> None:
        self.steps, self._factor = plain["steps"], plain["factor"]
        self._plateau.load_state_dict(plain["plateau"])
