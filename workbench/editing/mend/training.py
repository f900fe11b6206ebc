"""Training of MEND's hypernetworks: settings, training loop and checkpoints."""

import hashlib
import json
import logging
import math
import random
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor
from tqdm.auto import tqdm

from workbench.editing.editor import sort_layers
from workbench.editing.mend.corpus import Corpus
from workbench.editing.mend.factors import weights_to_edit
from workbench.editing.mend.losses import Losses, draw_edits, draw_texts, losses_after, sizes_that_fit
from workbench.editing.mend.network import MendNetwork
from workbench.errors import EditError
from workbench.lm import LanguageModel
from workbench.parameters import COUNT, POSITIVE, SEED, Interval, check_parameters
from workbench.request import EditRequest
from workbench.storage.saved_tensors import read_tensors, save_tensors, with_prefix

log = logging.getLogger(__name__)

CHECKPOINT_FORMAT = "workbench-mend-checkpoint-2"
_VALIDATION_SEED = 10_000_019  # fixed, so that every validation reads the same texts


@dataclass(frozen=True)
class MendTraining:
    """Settings of the training.

    Mitchell et al. 2022, section 3.3: L = c_edit · L_e + c_loc · L_loc, minimized by Adam, with a separate learning
    rate for the edit learning rates. Published: c_edit 0.1, c_loc 1, lr 1e-6, edit_lr and lr_lr 1e-4, rank 1920,
    100,000 steps.

    Raises
    ------
    EditError
        If a setting is not allowed.
    """

    layers: Annotated[tuple[int, ...] | None, Interval(0), "blocks whose MLPs are edited; None: the last three"] = None
    steps: Annotated[int, COUNT, "training steps at most"] = 900
    facts_per_step: Annotated[int, COUNT, "facts whose losses are computed in one step"] = 10
    batch_sizes: Annotated[
        tuple[int, ...],
        COUNT,
        "numbers of facts per edit, one drawn per step; each divides facts_per_step or is larger",
    ] = (1, 1, 2, 5, 10)
    rank: Annotated[int, COUNT, "rank of the networks' layers"] = 64
    c_edit: Annotated[float, POSITIVE, "weight of the editing loss"] = 0.3
    c_loc: Annotated[float, POSITIVE, "weight of the locality loss"] = 1.0
    lr: Annotated[float, POSITIVE, "learning rate of Adam, which falls to 0 along half a cosine"] = 2e-3
    edit_lr: Annotated[float, POSITIVE, "initial value of every α"] = 2e-4
    lr_lr: Annotated[float, POSITIVE, "learning rate of Adam for log α"] = 3e-2
    grad_clip: Annotated[float, POSITIVE, "largest norm of a step's gradient"] = 1.0
    val_interval: Annotated[int, COUNT, "steps between validations"] = 100
    patience: Annotated[int, COUNT, "validations without a new best, after which training stops"] = 10
    checkpoint_interval: Annotated[int, COUNT, "steps between checkpoints"] = 50
    seed: Annotated[int, SEED, "seed of the initial weights and of every draw"] = 0

    def __post_init__(self) -> None:
        for name in ("layers", "batch_sizes"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        check_parameters(self)
        if self.layers:
            object.__setattr__(self, "layers", sort_layers(self.layers))
        if bad := [n for n in self.batch_sizes if n <= self.facts_per_step and self.facts_per_step % n]:
            raise EditError(
                f"batch_sizes must divide facts_per_step, {self.facts_per_step}, or be larger; got {bad[0]}."
            )


@dataclass
class _Progress:
    """State of a training run, besides the tensors of a checkpoint."""

    step: int = 0  # steps done
    seconds: float = 0.0
    best_step: int = 0
    best_loss: float = math.inf
    history: list[dict[str, float]] = field(default_factory=list)  # one record per validation
    recent: list[list[float]] = field(default_factory=list)  # losses since the last validation


class Trainer:
    """A training run that can be stopped at any moment and resumed.

    Parameters
    ----------
    lm : LanguageModel
        The unedited model.
    train, validation : sequence of EditRequest
        The facts.
    settings : MendTraining
        Settings of the training. The same facts, settings and model give the same bits each time.
    start : MendNetwork, optional
        Trained networks to start from, which are not changed; their rank, their α and their normalization are kept, so
        `rank` and `edit_lr` have no effect. Untrained ones by default.
    checkpoint : Path, optional
        File that is written every `checkpoint_interval` steps.

    Raises
    ------
    EditError
        If `start` is for other matrices than those of the settings.

    Attributes
    ----------
    network : MendNetwork
        The networks after the last step; after `run`, those of the best validation.
    """

    def __init__(
        self,
        lm: LanguageModel,
        train: Sequence[EditRequest],
        validation: Sequence[EditRequest],
        settings: MendTraining,
        *,
        start: MendNetwork | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        self._settings, self._checkpoint, self._progress = settings, checkpoint, _Progress()
        started = time.perf_counter()
        names = weights_to_edit(lm, settings.layers)
        if start is not None and start.names != names:
            raise EditError(
                f"the networks to start from are for {', '.join(start.names)}, not for {', '.join(names)}; give the "
                "layers that they were trained for."
            )
        self._corpus, self._validation = Corpus(lm, train, names), Corpus(lm, validation, names)
        if start is None:
            self.network = MendNetwork.untrained(
                lm, names, rank=settings.rank, edit_lr=settings.edit_lr, seed=settings.seed
            )
            self.network.normalize_by(self._corpus.factors)
        else:
            self.network = deepcopy(start).requires_grad_(True)
        rates = [self.network.log_edit_lr, self.network.batch_exponent]
        rest = [p for name, p in self.network.named_parameters() if name.startswith("transforms.")]
        self._adam = torch.optim.Adam([{"params": rest, "lr": settings.lr}, {"params": rates, "lr": settings.lr_lr}])
        self._best = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        facts = [[asdict(request) for request in part] for part in (train, validation)]
        decisive = json.dumps([asdict(settings), lm.fingerprint, str(lm.model.dtype), facts])
        started_from = b"" if start is None else save(start.state_dict())
        self._identity = hashlib.sha256(decisive.encode() + started_from).hexdigest()
        sizes = sizes_that_fit(settings.batch_sizes, n_facts=settings.facts_per_step, n_known=len(train))
        self._largest_batch = max(sizes)
        self._progress.seconds = time.perf_counter() - started

    def run(self) -> dict[str, Any]:
        """Train to the last step, or until `patience` validations bring no new best.

        Returns
        -------
        dict
            Record of the run in JSON values: steps, best step, seconds, largest batch, tokens of the texts, history of
            validations.
        """
        settings, progress = self._settings, self._progress
        began = time.perf_counter() - progress.seconds
        with tqdm(total=settings.steps, initial=progress.step, desc="Training MEND", unit="step") as bar:
            while progress.step < settings.steps and not self._is_out_of_patience():
                losses = self._step()
                bar.set_postfix(edit=f"{losses[0]:.3f}", locality=f"{losses[1]:.4f}", best=progress.best_step)
                bar.update()
                progress.seconds = time.perf_counter() - began
                if progress.step % settings.checkpoint_interval == 0:
                    self._save()
        self.network.load_state_dict(self._best)
        return {
            "steps": progress.step,
            "best_step": progress.best_step,
            "seconds": round(progress.seconds, 1),
            "largest_batch": self._largest_batch,
            "text_tokens": self._corpus.n_tokens + self._validation.n_tokens,
            "history": progress.history,
        }

    def _is_out_of_patience(self) -> bool:
        since_best = [record for record in self._progress.history if record["step"] > self._progress.best_step]
        return len(since_best) >= self._settings.patience

    def _step(self) -> list[float]:
        settings, progress = self._settings, self._progress
        share = (1 + math.cos(math.pi * progress.step / settings.steps)) / 2
        for group, rate in zip(self._adam.param_groups, (settings.lr, settings.lr_lr), strict=True):
            group["lr"] = rate * share
        edits = draw_edits(
            self._corpus, settings.facts_per_step, settings.batch_sizes, seed=f"{settings.seed} {progress.step}"
        )
        losses = losses_after(self._corpus, self.network, edits)
        total = settings.c_edit * losses.edit + settings.c_loc * losses.locality
        if not torch.isfinite(total):
            raise EditError(f"the loss became {total.item()} at step {progress.step}; a lower lr may help.")
        self._adam.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), settings.grad_clip)
        self._adam.step()
        progress.step += 1
        values = [losses.edit.item(), losses.locality.item()]
        progress.recent.append(values)
        if progress.step % settings.val_interval == 0 or progress.step == settings.steps:
            self._validate()
        return values

    @torch.no_grad()
    def _validate(self) -> None:
        progress = self._progress
        rng, n = random.Random(_VALIDATION_SEED), len(self._validation.facts)
        sizes = sorted({size for size in self._settings.batch_sizes if size < n} or {1})
        each = [self._mean_losses(size, rng) for size in sizes]
        mean = {key: sum(part[key] for part in each) / len(each) for key in Losses.__annotations__}
        loss = self._settings.c_edit * mean["edit"] + self._settings.c_loc * mean["locality"]
        recent = [sum(column) / len(column) for column in zip(*progress.recent, strict=True)]
        record = {"step": progress.step, "loss": loss, **mean, "train_edit": recent[0], "train_locality": recent[1]}
        progress.history.append(record)
        progress.recent = []
        log.info("step %d: %s", progress.step, ", ".join(f"{k} {v:.4f}" for k, v in record.items() if k != "step"))
        if loss < progress.best_loss:
            progress.best_loss, progress.best_step = loss, progress.step
            self._best = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}

    def _mean_losses(self, size: int, rng: random.Random) -> dict[str, float]:
        """Return the means of the losses over disjoint edits of `size` validation facts."""
        corpus, everything = self._validation, range(len(self._validation.facts))
        order = rng.sample(everything, len(everything))
        each = []
        for edited in (order[k : k + size] for k in range(0, len(order) - size + 1, size)):
            others = sorted(set(everything) - set(edited))
            each.append(losses_after(corpus, self.network, [[draw_texts(corpus, i, others, rng) for i in edited]]))
        return {key: sum(float(getattr(losses, key)) for losses in each) / len(each) for key in Losses.__annotations__}

    def resume(self) -> bool:
        """Restore the state of the last checkpoint, from which `run` continues.

        Returns
        -------
        bool
            False if there is no checkpoint yet.

        Raises
        ------
        EditError
            If the checkpoint is of a run with other facts, settings or another model, or cannot be read.
        """
        if self._checkpoint is None or not self._checkpoint.exists():
            return False
        meta, tensors = _read_checkpoint(self._checkpoint)
        if meta["identity"] != self._identity:
            raise EditError(
                f"{self._checkpoint} is of a run with other facts, settings or another model; repeat those, or "
                "delete it to start over."
            )
        self.network.load_state_dict(with_prefix("network.", tensors))
        device = self.network.log_edit_lr.device
        self._best = {name: tensor.to(device) for name, tensor in with_prefix("best.", tensors).items()}
        state = self._adam.state_dict()
        moments = with_prefix("adam.", tensors)
        indices = sorted({int(key.partition(".")[0]) for key in moments})
        state["state"] = {i: with_prefix(f"{i}.", moments) for i in indices}
        self._adam.load_state_dict(state)
        self._progress = _Progress(**meta["progress"])
        return True

    def _save(self) -> None:
        if self._checkpoint is None:
            return
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self._best.items()}
        for i, moments in self._adam.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{key}": tensor for key, tensor in moments.items()}
        meta = {"identity": self._identity, "progress": asdict(self._progress)}
        save_tensors(self._checkpoint, tensors, {"format": CHECKPOINT_FORMAT, "checkpoint": json.dumps(meta)})


def _read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        metadata, tensors = read_tensors(path)
    except (OSError, SafetensorError) as err:
        raise EditError(f"{path} cannot be read as a checkpoint ({err}); delete it to start over.") from err
    except ValueError as err:
        raise EditError(f"{path} is a damaged checkpoint ({err}); delete it to start over.") from err
    if metadata.get("format") != CHECKPOINT_FORMAT:
        raise EditError(f"{path} is not a checkpoint of train-mend; delete it or choose another --out.")
    return json.loads(metadata["checkpoint"]), tensors
