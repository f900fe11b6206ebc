"""MEND: model editor networks with gradient decomposition (Mitchell et al. 2022, arXiv 2110.11309)."""

from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch

from workbench.arguments import checked
from workbench.changes import low_rank
from workbench.edit_record import EditRecord
from workbench.editing.easyedit import read_hparams
from workbench.editing.editor import hyperparameters_of, require_requests, restore_fields, set_field
from workbench.editing.mend.factors import gradient_factors, lowest_block
from workbench.editing.mend.network import MendNetwork, largest_trained_batch, load_network, read_metadata
from workbench.editing.passes.target_texts import compute_upper_blocks
from workbench.encoding import encode_request
from workbench.errors import EditError
from workbench.lm import LanguageModel
from workbench.parameters import POSITIVE, check_parameters
from workbench.request import EditRequest
from workbench.storage.digests import sha256_of_file
from workbench.update import WeightUpdate

_TRAINED = Path(__file__).with_name("trained")  # the networks that come with the package

_YAML_FIELDS = ("lr_scale", "inner_params")
# these describe the network of such a file and its training; here the network's own file and `train-mend` do
_YAML_IGNORED = frozenset(
    {
        *("archive", "alg", "model_class", "tokenizer_class", "tokenizer_name", "results_dir", "seed"),
        *("lr", "edit_lr", "lr_lr", "cedit", "cloc", "cbase", "dropout", "train_base", "no_grad_layers", "opt"),
        *("one_sided", "n_hidden", "hidden_dim", "init", "norm", "combine", "x_only", "delta_only", "act", "rank"),
        *("mlp_class", "shared", "batch_size", "model_save_pt", "silent", "max_epochs", "max_iters", "log_interval"),
        *("eval_log_interval", "final_eval", "val_interval", "early_stop_patience", "early_stop_key", "eval_only"),
        *("half", "debug", "save", "verbose", "val_batch_size", "accumulate_bs", "val_steps", "grad_clip"),
        *("max_length", "max_output_length"),
    }
)


@dataclass(frozen=True)
class MEND:
    """Edit by a trained transformation of the fine-tuning gradient.

    Mitchell et al. 2022, section 3: the gradient of the edit's loss with respect to a weight is Σ_t δ_t u_tᵀ over the
    tokens t; hypernetworks map each pair of factors to (ũ_t, δ̃_t), and the edit is ΔW = −α Σ_t δ̃_t ũ_tᵀ. The loss is
    the NLL of the target, averaged over its tokens. A batch of facts is one edit, for the sum of their losses: the
    contribution of a fact's tokens does not depend on the number of facts that share the edit (the published code takes
    the mean, which divides δ by their number before the networks see it). Padding has no factor.

    The sum grows with the number n of facts, and networks are trained on edits of at most some number N of them, which
    is read from their file. Beyond it, with ``larger_batches="scaled"``, the sum is multiplied by N / n. With
    ``"summed"`` it is not. A file that does not say what its networks were trained on counts as trained on any number.

    The networks are trained beforehand, by ``workbench train-mend``, for one model; those of the embedded model come
    with the package. The fields are the hyperparameters.

    Raises
    ------
    EditError
        If a hyperparameter is not allowed.
    """

    supports_batch: ClassVar[bool] = True
    needs_subject: ClassVar[bool] = False
    label: ClassVar[str] = "MEND"

    network: Annotated[
        str | None, "file that train-mend wrote; None: the one that comes with the package for the model"
    ] = None
    lr_scale: Annotated[float, POSITIVE, "factor of every edit learning rate α"] = 1.0
    larger_batches: Annotated[
        Literal["scaled", "summed"],
        "edits of more facts than the largest training batch: scaled down to its size, or the plain sum",
    ] = "scaled"
    inner_params: Annotated[
        tuple[str, ...] | None, "names of the parameters that are edited; None: all that the network covers"
    ] = None

    def __post_init__(self) -> None:
        restore_fields(self)
        if isinstance(self.network, PathLike):
            set_field(self, "network", fspath(self.network))  # a Path is no JSON value
        check_parameters(self)

    @classmethod
    @checked
    def for_model(cls, lm: LanguageModel) -> "MEND":
        """Return an editor that uses the network in the package, with edit learning rates as trained.

        Parameters
        ----------
        lm : LanguageModel
            The model. Whether there is a network for it is checked by `prepared` and `compute_update`.

        Returns
        -------
        MEND
        """
        return cls()

    @classmethod
    def from_yaml(cls, path: str | Path) -> "MEND":
        """Read one of EasyEdit's MEND hparams files.

        Of their keys, `lr_scale` and `inner_params` determine how an edit is computed. The others describe the network
        in `archive`, a pickle that is not read here: pass a network that `train-mend` wrote as `network`.

        Parameters
        ----------
        path : str or Path
            A YAML file with EasyEdit's keys.

        Returns
        -------
        MEND

        Raises
        ------
        EditError
            If the file cannot be read, is not for MEND, or has an unknown field or a value that is not allowed.
        """
        return cls(**read_hparams(path, cls, _YAML_FIELDS, ignored=_YAML_IGNORED))

    def prepared(self, lm: LanguageModel) -> "MEND":
        """Return this editor; raise `EditError` if there is no network for `lm`."""
        self._load_network(lm)
        return self

    @checked
    def compute_update(self, lm: LanguageModel, requests: list[EditRequest]) -> WeightUpdate:
        """Return the update that writes one or several facts at once; the model is not changed.

        Parameters
        ----------
        lm : LanguageModel
            The model, with earlier edits if any are applied.
        requests : list of EditRequest
            One or more requests.

        Returns
        -------
        WeightUpdate
            Factors (d_out, r) and (d_in, r) of each matrix, where r is the number of tokens with a gradient. The record
            holds as diagnostics `loss_before_edit` (of each fact), `network` (name and SHA-256 of its file), `rank` (r
            of each matrix), `largest_trained_batch` (None if the file does not say) and `batch_scale` (factor of the
            sum over facts: 1 unless there are more facts than that).

        Raises
        ------
        EditError
            If there is no request, no network for this model, the network does not cover a parameter in
            `inner_params`, or the loss is not finite.
        RequestError
            If a target has no tokens.
        """
        require_requests(self, requests)
        network, path = self._load_network(lm)
        trained = largest_trained_batch(read_metadata(path))
        n_facts = len(requests) if trained is None else min(len(requests), trained)
        batch_scale = n_facts / len(requests) if self.larger_batches == "scaled" else 1.0
        names = network.names if self.inner_params is None else self.inner_params
        texts = [encode_request(lm.tokenizer, request) for request in requests]
        factors, losses = gradient_factors(compute_upper_blocks(lm, texts, lowest_block(lm, names)), texts, names)
        if not torch.isfinite(losses).all():
            raise EditError(f"the loss of the target is {float(losses.sum())} before the edit; is {lm.name} intact?")
        changes = {}
        for name in names:
            device = network.log_edit_lr.device
            u, delta = (torch.cat(rows).to(device) for rows in zip(*(each[name] for each in factors), strict=True))
            left, right = network(name, u, delta, n_facts)
            changes[name] = low_rank(lm, name, self.lr_scale * batch_scale * left.T, right.T)
        record = EditRecord(
            self.label,
            tuple(requests),
            hyperparameters_of(self),
            diagnostics={
                "loss_before_edit": losses.tolist(),
                "network": {"file": path.name, "sha256": sha256_of_file(path)},
                "rank": {name: change.rows.shape[1] for name, change in changes.items()},
                "largest_trained_batch": trained,
                "batch_scale": batch_scale,
            },
        )
        return WeightUpdate.of_edit(lm, changes, record)

    def _load_network(self, lm: LanguageModel) -> tuple[MendNetwork, Path]:
        path = _find_shipped(lm) if self.network is None else Path(self.network)
        network = load_network(path, lm)
        if self.inner_params is not None and (missing := [n for n in self.inner_params if n not in network.names]):
            raise EditError(f"{path} has no network for {missing[0]!r}; it has: {', '.join(network.names)}.")
        return network, path


def _find_shipped(lm: LanguageModel) -> Path:
    for path in sorted(_TRAINED.glob("*.safetensors")):
        if read_metadata(path)["fingerprint"] == lm.fingerprint:
            return path
    raise EditError(
        f"no MEND network is trained for {lm.name} (fingerprint {lm.fingerprint}); run `workbench train-mend --model "
        f"{lm.name} --out FILE` and give the file as network."
    )
