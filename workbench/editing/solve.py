"""Linear systems of second moments and keys, in float64."""

import torch
from torch import Tensor

from workbench.errors import EditError


def solve_keys(C: Tensor, keys: Tensor, weight: float, *, earlier: Tensor | None = None, ridge: float = 0.0) -> Tensor:
    """Return (λ C + K_p K_pᵀ + λ_n I + K Kᵀ)⁻¹ K, by a Cholesky factorization in float64.

    Meng et al. 2023, eq. 14: ΔW = R Kᵀ (λ C + K Kᵀ)⁻¹, so that ΔW = R @ solve_keys(...)ᵀ; with the keys K_p of earlier
    edits MEMIT-seq (Fang et al. 2025, arXiv 2410.02355), with λ_n, too, ENCORE (Gupta et al. 2025, arXiv 2502.01636).

    Parameters
    ----------
    C : Tensor (d_ff, d_ff)
        Second moment of the keys, positive semidefinite.
    keys : Tensor (N, d_ff)
        Kᵀ.
    weight : float
        λ, positive.
    earlier : Tensor (N_p, d_ff), optional
        K_pᵀ.
    ridge : float
        λ_n, at least 0.

    Returns
    -------
    Tensor (d_ff, N)
        float64, on the device of `keys`.

    Raises
    ------
    EditError
        If λ C + K Kᵀ is singular: C needs more tokens than the keys have dimensions.
    """
    system = sum_moments(C, weight, keys if earlier is None else torch.cat([keys, earlier.to(keys.device)]))
    system.diagonal().add_(ridge)
    return solve_spd(system, keys.double().T, "λ C + K Kᵀ")


def sum_moments(C: Tensor, weight: float, keys: Tensor) -> Tensor:
    """Return λ C + K Kᵀ, for which no other matrix of its size is made.

    Parameters
    ----------
    C : Tensor (d_ff, d_ff)
        Second moment of keys, on any device.
    weight : float
        λ.
    keys : Tensor (N, d_ff)
        Kᵀ; N may be 0.

    Returns
    -------
    Tensor (d_ff, d_ff)
        float64, on the device of `keys`.
    """
    K = keys.double().T
    return C.to(K.device, torch.float64, copy=True).mul_(weight).addmm_(K, K.T)


def solve_spd(system: Tensor, right: Tensor, name: str) -> Tensor:
    """Return A⁻¹ B for a second moment A, by a Cholesky factorization.

    A neuron that never fires has a row of zeros in A, and its row of the solution is that of B.

    Parameters
    ----------
    system : Tensor (d, d)
        A, positive semidefinite; its diagonal may be changed.
    right : Tensor (d, n)
        B.
    name : str
        What A is called in errors.

    Returns
    -------
    Tensor (d, n)

    Raises
    ------
    EditError
        If A is singular: C needs more tokens than the keys have dimensions.
    """
    system.diagonal().masked_fill_(system.diagonal() == 0, 1.0)
    factor, failed = torch.linalg.cholesky_ex(system)
    if failed:
        raise EditError(f"{name} of {len(system)} dimensions is singular; estimate C from more tokens.")
    return torch.cholesky_solve(right, factor)
