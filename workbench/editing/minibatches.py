"""Training on minibatches of facts until their loss is low enough, as FT and LoRA do it."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from tqdm.auto import tqdm

from workbench.editing.passes.target_texts import compute_target_loss
from workbench.encoding import Encoded
from workbench.errors import EditError
from workbench.lm import LanguageModel


class Trained(Protocol):
    """The hyperparameters of a method that is trained in passes over its facts."""

    @property
    def label(self) -> str:
        """Name in errors and progress bars."""

    @property
    def num_steps(self) -> int:
        """Number of passes over the facts."""

    @property
    def loss_threshold(self) -> float:
        """Loss per token below which a minibatch makes no step, and training stops."""


@dataclass(frozen=True)
class Minibatch:
    """The function that computes the loss of some facts, and their number."""

    loss: Callable[[], Tensor]
    size: int


def make_minibatches(lm: LanguageModel, texts: Sequence[Encoded], batch_size: int, layer: int) -> list[Minibatch]:
    """Group texts in their order; the blocks below `layer`, which are not trained, run once for each minibatch."""
    parts = [texts[i : i + batch_size] for i in range(0, len(texts), batch_size)]
    return [Minibatch(compute_target_loss(lm, part, layer), len(part)) for part in parts]


def train(method: Trained, passes: Iterator[list[Minibatch]], step: Callable[[Tensor], object]) -> list[float]:
    """Make steps until the mean loss of a pass is below the threshold.

    Parameters
    ----------
    method : Trained
        The hyperparameters.
    passes : iterator of list of Minibatch
        The minibatches of one pass after another.
    step : callable
        Called with the loss of a minibatch that is not low enough; changes what is trained.

    Returns
    -------
    list of float
        Mean loss of each pass over its facts, each before the step on them.

    Raises
    ------
    EditError
        If a loss is not finite.
    """
    history: list[float] = []
    with torch.enable_grad():
        for _ in tqdm(range(method.num_steps), desc=method.label, unit="pass", leave=False):
            batches = next(passes)
            values = [_visit(method, batch, step) for batch in batches]
            sizes = [batch.size for batch in batches]
            history.append(sum(v * n for v, n in zip(values, sizes, strict=True)) / sum(sizes))
            if history[-1] < method.loss_threshold:
                break
    return history


def _visit(method: Trained, batch: Minibatch, step: Callable[[Tensor], object]) -> float:
    """Make one step on one minibatch, unless its loss is low enough; return its loss before the step."""
    loss = batch.loss()
    value = loss.item()  # read once: the device waits
    if not math.isfinite(value):
        raise EditError(f"the loss of {method.label} became {value}; a lower lr may help.")
    if value >= method.loss_threshold:
        step(loss)
    return value
