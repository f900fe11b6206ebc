"""MEND's hypernetworks: from the factors of a gradient to the factors of an edit."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from workbench.editing.mend.factors import Factors
from workbench.errors import EditError
from workbench.lm import LanguageModel
from workbench.storage.files import write_atomically

FORMAT = "workbench-mend-1"
_SMALLEST_SCALE = 1e-3  # of the largest of a matrix: what hardly varies is not blown up


class LowRankLayer(nn.Module):
    """z + σ(s ⊙ (U V z + b) + o), σ = max(·, 0): one of the two steps of eq. 3 of Mitchell et al. 2022.

    U starts at zero, so the layer starts as the identity. s and o belong to one edited matrix, the rest to all
    matrices of one shape.

    Parameters
    ----------
    dim : int
        Length of z.
    rank : int
        Columns of U.
    n_matrices : int
        Edited matrices that share U, V and b.
    generator : torch.Generator
        Draws V.
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
        """(t, dim) to (t, dim), for the matrix `index` of this shape."""
        hidden = z @ self.V.T @ self.U.T + self.bias
        # clamp lets a gradient through at exactly 0, where every entry starts; relu would not
        return z + (self.scale[index] * hidden + self.shift[index]).clamp(min=0)


class GradientTransform(nn.Module):
    """g of Mitchell et al. 2022, section 3.2, for all edited matrices of one shape: (u, δ) to (ũ, δ̃).

    u and δ are normalised, each dimension by its mean and standard deviation over the training edits (of that
    matrix, where the published code takes all of one shape together), joined, and put through two `LowRankLayer`s.

    Parameters
    ----------
    d_in, d_out : int
        Lengths of u and δ.
    rank : int
        Of the layers; at most d_in + d_out is of use.
    n_matrices : int
        Edited matrices of this shape.
    generator : torch.Generator
        Draws the start.
    """

    def __init__(self, d_in: int, d_out: int, rank: int, n_matrices: int, generator: torch.Generator) -> None:
        super().__init__()
        self.d_in, self.d_out = d_in, d_out
        rank = min(rank, d_in + d_out)
        self.layers = nn.ModuleList(LowRankLayer(d_in + d_out, rank, n_matrices, generator) for _ in range(2))
        self.register_buffer("mean", torch.zeros(n_matrices, d_in + d_out))
        self.register_buffer("std", torch.ones(n_matrices, d_in + d_out))

    def normalize_by(self, index: int, u: Tensor, delta: Tensor) -> None:
        """Take mean and standard deviation of matrix `index` from factors (t, d_in) and (t, d_out)."""
        z = torch.cat([u, delta], dim=-1).double()
        std, mean = torch.std_mean(z, dim=0)
        parts = [part.clamp(min=max(_SMALLEST_SCALE * float(part.max()), 1e-30)) for part in std.split(self._sizes)]
        self.mean[index], self.std[index] = mean, torch.cat(parts)

    @property
    def _sizes(self) -> list[int]:
        return [self.d_in, self.d_out]

    def forward(self, u: Tensor, delta: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """ũ (t, d_in) and δ̃ (t, d_out) of matrix `index`."""
        z = (torch.cat([u, delta], dim=-1).to(self.mean) - self.mean[index]) / self.std[index]
        for layer in self.layers:
            z = layer(z, index)
        u, delta = z.split(self._sizes, dim=-1)
        return u, delta


class MendNetwork(nn.Module):
    """The networks of all edited matrices of one model, and their edit learning rates α.

    Parameters
    ----------
    shapes : dict of str to (int, int)
        Edited parameter to (d_in, d_out).
    rank : int
        Of the networks' layers.
    edit_lr : float
        What every α starts at.
    seed : int
        Draws the start.
    """

    def __init__(self, shapes: dict[str, tuple[int, int]], *, rank: int, edit_lr: float = 1e-4, seed: int = 0) -> None:
        super().__init__()
        if rank < 1 or not 0 < edit_lr < float("inf"):
            raise EditError(f"rank must be at least 1 and edit_lr positive; got {rank} and {edit_lr}.")
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.rank = rank
        self._index, count = {}, Counter()
        for name, shape in self.shapes.items():
            self._index[name] = count[shape]
            count[shape] += 1
        generator = torch.Generator().manual_seed(seed)
        self.transforms = nn.ModuleDict(
            {_key(shape): GradientTransform(*shape, rank, n, generator) for shape, n in count.items()}
        )
        # the logarithm keeps α positive, and makes a step of the optimiser a share of it
        self.log_edit_lr = nn.Parameter(torch.full((len(shapes),), edit_lr).log())

    @classmethod
    def fresh(
        cls, lm: LanguageModel, names: Sequence[str], *, rank: int, edit_lr: float = 1e-4, seed: int = 0
    ) -> "MendNetwork":
        """Untrained networks for some matrices of a model: every edit is one gradient step with rate `edit_lr`.

        Parameters
        ----------
        lm : LanguageModel
            Its weights' shapes are read.
        names : sequence of str
            Parameters of linear layers.
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
        """The edited parameters."""
        return tuple(self.shapes)

    @property
    def edit_lrs(self) -> dict[str, float]:
        """α of each edited parameter."""
        return dict(zip(self.names, self.log_edit_lr.exp().tolist(), strict=True))

    @torch.no_grad()
    def normalize_by(self, factors: Iterable[Factors]) -> None:
        """Take the normalisation of every matrix from these factors of the training edits."""
        factors = list(factors)
        for name, shape in self.shapes.items():
            u, delta = (torch.cat(parts) for parts in zip(*(rows[name] for rows in factors), strict=True))
            if len(u) > 1:
                self.transforms[_key(shape)].normalize_by(self._index[name], u, delta)

    def forward(self, name: str, u: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Factors of the edit of one matrix: ΔW = −α Σ_t δ̃_t ũ_tᵀ.

        The minus is the paper's; the published code adds, and its networks have to learn the sign.

        Parameters
        ----------
        name : str
            One of `names`.
        u, delta : Tensor (t, d_in), Tensor (t, d_out)
            Factors of the gradient.

        Returns
        -------
        left, right : Tensor (t, d_out), Tensor (t, d_in)
            ΔW = leftᵀ @ right, (d_out, d_in); left holds −α.
        """
        right, left = self.transforms[_key(self.shapes[name])](u, delta, self._index[name])
        return -self.log_edit_lr[self.names.index(name)].exp() * left, right


def _key(shape: tuple[int, int]) -> str:
    return f"{shape[0]}x{shape[1]}"


def save_network(network: MendNetwork, path: str | Path, lm: LanguageModel, *, training: dict | None = None) -> Path:
    """Write networks as safetensors: their large matrices in float16, the rest in float32. Atomic.

    Parameters
    ----------
    network : MendNetwork
        For matrices of `lm`.
    path : str or Path
        File to write; replaced if it exists.
    lm : LanguageModel
        Its name and fingerprint are kept beside the weights.
    training : dict, optional
        How they were trained (JSON values).

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
        name: tensor.detach().cpu().to(torch.float16 if name.endswith((".U", ".V")) else torch.float32).contiguous()
        for name, tensor in network.state_dict().items()
    }
    metadata = {"format": FORMAT, "mend": json.dumps(meta)}
    return write_atomically(path, lambda scratch: save_file(tensors, scratch, metadata=metadata))


def read_metadata(path: str | Path) -> dict:
    """What `save_network` wrote beside the weights: model, fingerprint, shapes, rank, training.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    dict

    Raises
    ------
    EditError
        If it cannot be read, or is not a MEND network.
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


def load_network(path: str | Path, lm: LanguageModel) -> MendNetwork:
    """Read what `save_network` wrote, for the model it was trained for; kept in `lm.memo`.

    Parameters
    ----------
    path : str or Path
        The file.
    lm : LanguageModel
        That model.

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
    key = ("MEND network", file_digest(path))
    if key not in lm.memo:
        lm.memo[key] = _read(path, meta).to(lm.device).requires_grad_(False)
    return lm.memo[key]


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: str | Path, meta: dict) -> MendNetwork:
    try:
        network = MendNetwork(
            {name: tuple(map(int, shape)) for name, shape in meta["shapes"].items()}, rank=meta["rank"]
        )
        with safe_open(path, framework="pt") as file:
            network.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, TypeError, ValueError, RuntimeError) as err:
        reason = str(err).strip().splitlines()[0]
        raise EditError(f"{path} is a damaged MEND network ({reason}); make it again.") from err
    return network
