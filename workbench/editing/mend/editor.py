"""MEND: model editor networks with gradient decomposition (Mitchell et al. 2022, arXiv 2110.11309)."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from workbench.editing.easyedit import read_hparams
from workbench.editing.mend.factors import first_block, gradient_factors
from workbench.editing.mend.network import MendNetwork, file_digest, load_network, read_metadata
from workbench.editing.passes.target_texts import upper_blocks
from workbench.encoding import encode_request
from workbench.errors import EditError
from workbench.lm import LanguageModel
from workbench.request import EditRequest
from workbench.update import WeightUpdate, low_rank

_TRAINED = Path(__file__).with_name("trained")  # the networks that come with the package

_YAML_FIELDS = {"lr_scale": float, "inner_params": list[str]}
# how the network of such a file is built and trained, and by what: here its own file and `train-mend` say that
_YAML_ELSEWHERE = frozenset(
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
    the NLL of the target, averaged over its tokens. A batch of facts is one edit, of the sum of their losses: what a
    fact's tokens contribute does not hang on how many facts share the edit (the published code takes the mean, which
    divides δ by their number before the networks see it). Padding has no factor.

    The networks are trained beforehand, by ``workbench train-mend``, for one model; the embedded model's come with
    the package. Attributes are the hyperparameters.

    Raises
    ------
    EditError
        If lr_scale is not a positive number.
    """

    supports_batch = True

    network: str | None = None  # file that train-mend wrote; None: the one that comes with the package for the model
    lr_scale: float = 1.0  # times every edit learning rate α
    inner_params: tuple[str, ...] | None = None  # parameters that are edited; None: all that the network is for

    def __post_init__(self) -> None:
        if not 0 < self.lr_scale < float("inf"):
            raise EditError(f"lr_scale must be a positive number; got {self.lr_scale}.")
        if self.inner_params is not None:
            object.__setattr__(self, "inner_params", tuple(self.inner_params))

    @classmethod
    def for_model(cls, lm: LanguageModel) -> "MEND":
        """The network that comes with the package, edit learning rates as trained.

        Parameters
        ----------
        lm : LanguageModel
            Whether there is a network for it is asked when it is needed, by `prepared` and `compute_update`.

        Returns
        -------
        MEND
        """
        return cls()

    @classmethod
    def from_yaml(cls, path: str | Path) -> "MEND":
        """Read one of EasyEdit's MEND hparams files.

        Of their keys, `lr_scale` and `inner_params` say how an edit is made. The others describe the network in
        `archive`, a pickle that is not read here: give a network of one's own as `network`.

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
            If the file cannot be read, is not for MEND, or has a field that is not known.
        """
        return cls(**read_hparams(path, "MEND", _YAML_FIELDS, elsewhere=_YAML_ELSEWHERE))

    @property
    def label(self) -> str:
        """How tables and legends call it."""
        return "MEND"

    def prepared(self, lm: LanguageModel) -> "MEND":
        """Return this editor if there is a network for `lm`; raises `EditError` if not."""
        self._load(lm)
        return self

    def compute_update(self, lm: LanguageModel, requests: list[EditRequest]) -> WeightUpdate:
        """The update that writes one fact or several at once; the model is not changed.

        Parameters
        ----------
        lm : LanguageModel
            The model as it is now, with earlier edits if any are applied.
        requests : list of EditRequest
            One or more.

        Returns
        -------
        WeightUpdate
            Factors (d_out, r) and (d_in, r) of each matrix, r the number of tokens with a gradient; `info` has the
            `losses` of the facts before the edit, and for each matrix `relative_norm` (‖ΔW‖/‖W‖) and `rank` (r).

        Raises
        ------
        EditError
            If there is no request, no network for this model, the network is not for a parameter in `inner_params`,
            or the loss is not finite.
        RequestError
            If a target tokenises to nothing.
        """
        if not requests:
            raise EditError("MEND edits one fact or more an operation; got no request.")
        network, path = self._load(lm)
        names = network.names if self.inner_params is None else self.inner_params
        texts = [encode_request(lm.tokenizer, request) for request in requests]
        factors, losses = gradient_factors(upper_blocks(lm, texts, first_block(lm, names)), texts, names)
        if not torch.isfinite(losses).all():
            raise EditError(f"the loss of the target is {float(losses.sum())} before the edit; is {lm.name} intact?")
        changes = {}
        for name in names:
            device = network.log_edit_lr.device
            u, delta = (torch.cat(rows).to(device) for rows in zip(*(each[name] for each in factors), strict=True))
            left, right = network(name, u, delta)
            changes[name] = low_rank(lm, name, self.lr_scale * left.T, right.T)
        info = {
            "method": self.label,
            "requests": [asdict(request) for request in requests],
            "hyperparameters": asdict(self),
            "network": {"file": path.name, "sha256": file_digest(path)},
            "losses": losses.tolist(),
            "relative_norm": {name: change.norm() / float(lm.weight(name).norm()) for name, change in changes.items()},
            "rank": {name: change.rows.shape[1] for name, change in changes.items()},
        }
        return WeightUpdate(changes, (info,), lm.name, lm.fingerprint)

    def _load(self, lm: LanguageModel) -> tuple[MendNetwork, Path]:
        path = _shipped(lm) if self.network is None else Path(self.network)
        network = load_network(path, lm)
        if self.inner_params is not None and (missing := [n for n in self.inner_params if n not in network.names]):
            raise EditError(f"{path} has no network for {missing[0]!r}; it has: {', '.join(network.names)}.")
        return network, path


def _shipped(lm: LanguageModel) -> Path:
    for path in sorted(_TRAINED.glob("*.safetensors")):
        if read_metadata(path)["fingerprint"] == lm.fingerprint:
            return path
    raise EditError(
        f"no MEND network is trained for {lm.name} (fingerprint {lm.fingerprint}); run `workbench train-mend --model "
        f"{lm.name} --out FILE` and give the file as network."
    )
