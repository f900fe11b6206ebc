"""MEND's hypernetworks, which map the factors of a gradient to the factors of an edit, and their files."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from workbench.editing.mend.factors import Factors
from workbench.errors import EditError, first_line
from workbench.lm import LanguageModel
from workbench.storage.digests import sha256_of_file
from workbench.storage.saved_tensors import read_tensors, save_tensors

FORMAT = "workbench-mend-1"
_SMALLEST_SCALE = 1e-3  # relative to the largest of a matrix, so that dimensions that hardly vary are not amplified


class LowRankLayer(nn.Module):
    """The map z + σ(s ⊙ (U V z + b) + o), σ = max(·, 0): one of the two steps of eq. 3 of Mitchell et al. 2022.

    U starts at zero, so the layer starts as the identity. s and o belong to one edited matrix; U, V and b are shared by
    all matrices of one shape.

    Parameters
    ----------
    dim : int
        Length of z.
    rank : int
        Number of columns of U.
    n_matrices : int
        Number of edited matrices that share U, V and b.
    generator : torch.Generator
        Random generator for the initial V.
    """

    def __init__(self, dim: int, rank: int, n_matrices: int, generator: torch.Generator) -> None:
        super().__init__()
        self.U = nn.Parameter(torch.zeros(dim, rank))
        # of unit length, where the published code draws from N(0, 1): its learning rate is a thousandth of ours
        self.V = nn.Parameter(torch.randn(rank, dim, generator=generator) / dim**0.5)
        self.bias = nn.Parameter(torch.zeros(dim))
        self.scale = nn.Parameter(torch.ones(n_matrices, dim))
        self.shift = nn.Parameter(torch.zeros(n_matrices, dim))

    def forward(self, z: Tensor, index: int) -> Tensor:
        """Return the image (t, dim) of `z` (t, dim), for the matrix `index` of this shape."""
        hidden = z @ self.V.T @ self.U.T + self.bias
        # clamp lets a gradient through at exactly 0, where every entry starts; relu would not
        return z + (self.scale[index] * hidden + self.shift[index]).clamp(min=0)


class GradientTransform(nn.Module):
    """The map g of Mitchell et al. 2022, section 3.2, from (u, δ) to (ũ, δ̃), for all edited matrices of one shape.

    u and δ are normalized, each dimension by its mean and standard deviation over the training edits (of that matrix,
    where the published code takes all matrices of one shape together), concatenated, and passed through two
    `LowRankLayer`s.

    Parameters
    ----------
    d_in, d_out : int
        Lengths of u and δ.
    rank : int
        Rank of the layers, at most d_in + d_out; larger values are reduced to that.
    n_matrices : int
        Number of edited matrices of this shape.
    generator : torch.Generator
        Random generator for the initial weights.
    """

    def __init__(self, d_in: int, d_out: int, rank: int, n_matrices: int, generator: torch.Generator) -> None:
        super().__init__()
        self.d_in, self.d_out = d_in, d_out
        rank = min(rank, d_in + d_out)
        self.layers = nn.ModuleList(LowRankLayer(d_in + d_out, rank, n_matrices, generator) for _ in range(2))
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(n_matrices, d_in + d_out))
        self.register_buffer("std", torch.ones(n_matrices, d_in + d_out))

    def normalize_by(self, index: int, u: Tensor, delta: Tensor) -> None:
        """Set mean and standard deviation of the matrix `index` to those of the factors (t, d_in) and (t, d_out)."""
        z = torch.cat([u, delta], dim=-1).double()
        std, mean = torch.std_mean(z, dim=0)
        parts = [part.clamp(min=max(_SMALLEST_SCALE * float(part.max()), 1e-30)) for part in std.split(self._sizes)]
        self.mean[index], self.std[index] = mean, torch.cat(parts)

    @property
    def _sizes(self) -> list[int]:
        return [self.d_in, self.d_out]

    def forward(self, u: Tensor, delta: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Return ũ (t, d_in) and δ̃ (t, d_out) of the matrix `index`."""
        z = (torch.cat([u, delta], dim=-1).to(self.mean) - self.mean[index]) / self.std[index]
        for layer in self.layers:
            z = layer(z, index)
        u, delta = z.split(self._sizes, dim=-1)
        return u, delta


class MendNetwork(nn.Module):
    """The networks of all edited matrices of one model, and their edit learning rates α.

    Parameters
    ----------
    shapes : mapping of str to (int, int)
        (d_in, d_out) of each edited parameter.
    rank : int
        Rank of the networks' layers.
    edit_lr : float
        Initial value of every α.
    seed : int
        Seed of the initial weights.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, int]], *, rank: int, edit_lr: float = 1e-4, seed: int = 0
    ) -> None:
        super().__init__()
        if rank < 1 or not 0 < edit_lr < float("inf"):
            raise EditError(f"rank must be at least 1 and edit_lr positive; got {rank} and {edit_lr}.")
        self.shapes = {name: (d_in, d_out) for name, (d_in, d_out) in shapes.items()}
        self.rank = rank
        self._index: dict[str, int] = {}  # of each parameter among those of its shape
        count: Counter[tuple[int, int]] = Counter()
        for name, shape in self.shapes.items():
            self._index[name] = count[shape]
            count[shape] += 1
        generator = torch.Generator().manual_seed(seed)
        self.transforms = nn.ModuleDict(
            {_transform_name(shape): GradientTransform(*shape, rank, n, generator) for shape, n in count.items()}
        )
        # the logarithm keeps α positive, and makes a step of the optimizer relative to it
        self.log_edit_lr = nn.Parameter(torch.full((len(shapes),), edit_lr).log())
        self.batch_exponent = nn.Parameter(torch.zeros(len(shapes)))

    @classmethod
    def untrained(
        cls, lm: LanguageModel, names: Sequence[str], *, rank: int, edit_lr: float = 1e-4, seed: int = 0
    ) -> "MendNetwork":
        """Return untrained networks for some matrices of a model: each edit is one gradient step with rate `edit_lr`.

        Parameters
        ----------
        lm : LanguageModel
            The model, whose weights' shapes are read.
        names : sequence of str
            Names of the parameters, which are weights of linear layers.
        rank, edit_lr, seed
            As for the class.

        Returns
        -------
        MendNetwork
        """
        network = cls({name: lm.linear_shape(name) for name in names}, rank=rank, edit_lr=edit_lr, seed=seed)
        return network.to(lm.device)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the edited parameters."""
        return tuple(self.shapes)

    @property
    def edit_lrs(self) -> dict[str, float]:
        """Edit learning rate α of each edited parameter."""
        return dict(zip(self.names, self.log_edit_lr.exp().tolist(), strict=True))

    @torch.no_grad()
    def normalize_by(self, factors: Iterable[Factors]) -> None:
        """Set the normalization of every matrix from these factors of the training edits."""
        factors = list(factors)
        for name, shape in self.shapes.items():
            u, delta = (torch.cat(parts) for parts in zip(*(rows[name] for rows in factors), strict=True))
            if len(u) > 1:
                self._transform(shape).normalize_by(self._index[name], u, delta)

    def forward(self, name: str, u: Tensor, delta: Tensor, n_facts: int = 1) -> tuple[Tensor, Tensor]:
        """Return the factors of the edit of one matrix: ΔW = −α n^(−γ) Σ_t δ̃_t ũ_tᵀ for an edit of n facts.

        The minus sign is the paper's; the published code adds, and its networks have to learn the sign. The paper has
        γ = 0, a sum over facts. Here γ is trained with α, from 0, so that the same networks can make small and large
        edits: facts that share an edit interfere, and the more there are the less each should write.

        Parameters
        ----------
        name : str
            One of `names`.
        u, delta : Tensor (t, d_in), Tensor (t, d_out)
            Factors of the gradient.
        n_facts : int
            Number of facts of the edit.

        Returns
        -------
        left, right : Tensor (t, d_out), Tensor (t, d_in)
            ΔW = leftᵀ @ right, (d_out, d_in); left holds −α n^(−γ).
        """
        right, left = self._transform(self.shapes[name])(u, delta, self._index[name])
        row = self.names.index(name)
        return -self.log_edit_lr[row].exp() * n_facts ** -self.batch_exponent[row] * left, right

    def _transform(self, shape: tuple[int, int]) -> GradientTransform:
        return cast(GradientTransform, self.transforms[_transform_name(shape)])


def _transform_name(shape: tuple[int, int]) -> str:
    return f"{shape[0]}x{shape[1]}"


def save_network(
    network: MendNetwork, path: str | Path, lm: LanguageModel, *, training: dict[str, Any] | None = None
) -> Path:
    """Write networks as a safetensors file, atomically: U and V in float16, everything else in float32.

    Parameters
    ----------
    network : MendNetwork
        Networks for matrices of `lm`.
    path : str or Path
        File to write; replaced if it exists.
    lm : LanguageModel
        The model, whose name and fingerprint are written next to the weights.
    training : dict, optional
        Record of the training, in JSON values.

    Returns
    -------
    Path
        `path`.
    """
    meta = {
        "model": lm.name,
        "fingerprint": lm.fingerprint,
        "shapes": {name: list(shape) for name, shape in network.shapes.items()},
        "rank": network.rank,
        "training": training,
    }
    tensors = {
        name: tensor.to(torch.float16 if name.endswith((".U", ".V")) else torch.float32)
        for name, tensor in network.state_dict().items()
    }
    save_tensors(path, tensors, {"format": FORMAT, "mend": json.dumps(meta)})
    return Path(path)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Return what `save_network` wrote next to the weights: model, fingerprint, shapes, rank, training.

    Parameters
    ----------
    path : str or Path
        A file that `save_network` wrote.

    Returns
    -------
    dict

    Raises
    ------
    EditError
        If the file cannot be read, or is not a MEND network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as err:
        raise EditError(f"{path} cannot be read as a MEND network ({err}); `workbench train-mend` makes one.") from err
    try:
        match json.loads(metadata.get("mend", "null")):
            case {"model": str(), "fingerprint": str(), "shapes": dict(shapes), "rank": int(), "training": _} as meta:
                if metadata["format"] == FORMAT and shapes:
                    return meta
    except (ValueError, KeyError):
        pass
    raise EditError(f"{path} is a safetensors file, but not a MEND network; `workbench train-mend` makes one.")


def largest_trained_batch(metadata: dict[str, Any]) -> int | None:
    """Return the largest number of facts per edit that networks were trained on.

    Parameters
    ----------
    metadata : dict
        What `read_metadata` returns.

    Returns
    -------
    int or None
        From the record of the training: its `largest_batch`, or the largest of its settings' `batch_sizes` where that
        is missing; None if there is neither.
    """
    training = metadata["training"] or {}
    largest: int | None = training.get("largest_batch")
    return largest or max(training.get("settings", {}).get("batch_sizes", ()), default=None)


def facts_trained_on(metadata: dict[str, Any]) -> frozenset[str]:
    """Return the facts that determined networks: those of their training and of its validations.

    Parameters
    ----------
    metadata : dict
        What `read_metadata` returns.

    Returns
    -------
    frozenset of str
        Their prompts, filled with their subjects; empty if the file does not list them.
    """
    facts = (metadata["training"] or {}).get("facts", {})
    return frozenset(prompt for name in ("train", "validation") for prompt in facts.get(name, ()))


def load_network(path: str | Path, lm: LanguageModel) -> MendNetwork:
    """Read networks that `save_network` wrote; they are kept in `lm.memo`.

    Parameters
    ----------
    path : str or Path
        A file that `save_network` wrote.
    lm : LanguageModel
        The model that they were trained for.

    Returns
    -------
    MendNetwork
        In float32, on the model's device, without gradients.

    Raises
    ------
    EditError
        If the file cannot be read, is damaged, or is for another model.
    """
    meta = read_metadata(path)
    if meta["fingerprint"] != lm.fingerprint:
        raise EditError(
            f"{path} was trained for {meta['model']} (fingerprint {meta['fingerprint']}), not for {lm.name} "
            f"(fingerprint {lm.fingerprint}); train one with `workbench train-mend`."
        )
    digest, networks = sha256_of_file(path), lm.memo.section("MEND networks", 4)
    if digest not in networks:
        networks[digest] = _read_network(path, meta).to(lm.device).requires_grad_(False)
    return networks[digest]


def _read_network(path: str | Path, meta: dict[str, Any]) -> MendNetwork:
    try:
        shapes = {name: (int(d_in), int(d_out)) for name, (d_in, d_out) in meta["shapes"].items()}
        network = MendNetwork(shapes, rank=meta["rank"])
        _, tensors = read_tensors(path)
        # files from before γ was trained have none: a sum
        wide = {name: tensor.float() for name, tensor in tensors.items()}
        network.load_state_dict({"batch_exponent": torch.zeros(len(shapes))} | wide)
    except (OSError, SafetensorError, TypeError, ValueError, RuntimeError) as err:
        raise EditError(f"{path} is a damaged MEND network ({first_line(err)}); train it again.") from err
    return network
