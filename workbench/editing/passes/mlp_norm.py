"""The norm that follows the MLP in some families, before its output is added to the residual stream."""

import torch
from torch import Tensor

from workbench.lm import LanguageModel

_BISECTIONS = 100


@torch.no_grad()
def value_changes(lm: LanguageModel, layer: int, values: Tensor, shift: Tensor) -> Tensor:
    """Return the changes of values after which a block's MLP adds `shift` more to the residual stream, or almost.

    The norm is N(v) = g ⊙ v / rms(v), an RMS norm: what it returns lies on an ellipsoid, whatever the length of v. So
    the new v' is that of the same length that minimizes ‖N(v') − N(v) − shift‖.

    Parameters
    ----------
    lm : LanguageModel
        A model of a family with `mlp_norm`.
    layer : int
        The block.
    values, shift : Tensor (N, d_model)
        Outputs v of the MLP's output projection, and what is to be added to the residual stream besides N(v).

    Returns
    -------
    Tensor (N, d_model)
        v' − v, in float64.
    """
    norm = lm.model.get_submodule(f"{lm.arch.block(layer)}.{lm.arch.mlp_norm}")
    gain = norm(torch.ones_like(values[:1])).double()  # (1, d_model); the rms of ones is 1
    v = values.double()
    rms = v.square().mean(dim=1, keepdim=True).sqrt()
    return rms * closest_on_ellipsoid(gain, gain * v / rms + shift.double()) - v


def closest_on_ellipsoid(gain: Tensor, wanted: Tensor) -> Tensor:
    """Return the u with root mean square 1 that minimizes ‖gain ⊙ u − wanted‖.

    By a Lagrange multiplier, u = gain ⊙ wanted / (gain² + μ), where μ > −min gain² is such that mean u² = 1. As mean u²
    falls with μ, it is found by bisection.

    Parameters
    ----------
    gain : Tensor (1, d)
        Half axes of the ellipsoid, divided by √d; of either sign.
    wanted : Tensor (N, d)
        Points.

    Returns
    -------
    Tensor (N, d)
        float64.
    """
    above_least = gain.double().square()
    least = above_least.argmin()
    above_least = above_least - above_least[0, least]
    product = gain.double() * wanted.double()
    root_d = product.shape[1] ** 0.5
    # s = μ + min gain²: each denominator is at least s, and that of the least gain is s
    high = product.norm(dim=1, keepdim=True) / root_d
    low = torch.maximum(product[:, least, None].abs() / root_d, high * 1e-12)
    for _ in range(_BISECTIONS):
        middle = (low * high).sqrt()
        too_long = (product / (above_least + middle)).square().mean(dim=1, keepdim=True) > 1
        low, high = torch.where(too_long, middle, low), torch.where(too_long, high, middle)
    return product / (above_least + high)
