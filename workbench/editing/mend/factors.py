"""Gradients of edit losses as factors: for each token, the input of a linear layer and the gradient at its output."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from workbench.editing.passes.hooks import Hook, Hooks
from workbench.editing.passes.upper_blocks import UpperBlocks
from workbench.encoding import Encoded
from workbench.errors import EditError
from workbench.forward import target_nll, widen
from workbench.lm import LanguageModel

Factors = dict[str, tuple[Tensor, Tensor]]  # parameter name -> u (t, d_in) and δ (t, d_out), one row per token


def weights_to_edit(lm: LanguageModel, layers: Sequence[int] | None = None) -> tuple[str, ...]:
    """Return the names of the MLP's matrices in some blocks, input projections first.

    Mitchell et al. 2022, section 5, edit the MLP weights of the last three blocks; their published configurations also
    name the gate where there is one.

    Parameters
    ----------
    lm : LanguageModel
        The model, whose architecture row has the names.
    layers : sequence of int, optional
        The blocks; by default the last three.

    Returns
    -------
    tuple of str

    Raises
    ------
    EditError
        If a layer is out of range.
    """
    layers = range(max(lm.n_layers - 3, 0), lm.n_layers) if layers is None else sorted(set(layers))
    for layer in layers:
        lm.check_layer(layer)
    parts = (*lm.arch.mlp_in, lm.arch.mlp_out)
    return tuple(f"{lm.arch.block(layer)}.{part}.weight" for layer in layers for part in parts)


def module_of(lm: LanguageModel, name: str) -> nn.Module:
    """Return the module that holds parameter `name`."""
    return lm.model.get_submodule(name.removesuffix(".weight"))


def lowest_block(lm: LanguageModel, names: Sequence[str]) -> int:
    """Return the lowest block that holds one of these parameters.

    Raises `EditError` if one is not the weight of a linear layer in a block of this model.
    """
    blocks = {}
    known = {name for name, parameter in lm.model.named_parameters() if parameter.dim() == 2}
    for name in names:
        within = [i for i in range(lm.n_layers) if name.startswith(f"{lm.arch.block(i)}.")]
        if name not in known or not within:
            raise EditError(f"{name} is not a matrix in a block of {lm.name}; {lm.arch.mlp_out_weight(0)} is one.")
        blocks[name] = within[0]
    return min(blocks.values())


def gradient_factors(
    upper: UpperBlocks, texts: Sequence[Encoded], names: Sequence[str], tokens: Tensor | None = None
) -> tuple[list[Factors], Tensor]:
    """Return the factors of the gradient of each text's edit loss with respect to some matrices.

    Mitchell et al. 2022, section 3.1: the gradient of a linear layer's W is Σ_t δ_t u_tᵀ, where u_t is its input at
    token t and δ_t the gradient of the loss at its output there. The loss is the mean NLL of the target's tokens.

    Parameters
    ----------
    upper : UpperBlocks
        The texts, cached below the first of these matrices.
    texts : sequence of Encoded
        The same B texts.
    names : sequence of str
        Names of the parameters, which are weights of linear layers.
    tokens : Tensor (B, T), optional
        Boolean: the tokens that have a row; by default those with a gradient.

    Returns
    -------
    factors, losses : list of Factors, Tensor (B,)
        The factors of each text, float32 or wider; and its loss.
    """
    shape = (*upper.ids.shape, -1)
    inputs: dict[str, Tensor] = {}
    offsets: dict[str, Tensor] = {}

    def make_hook(name: str) -> Callable[..., Tensor]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            inputs[name] = args[0].detach()
            offsets[name] = torch.zeros_like(output, requires_grad=True)  # its gradient is that at the output
            return output + offsets[name]

        return hook

    hooks = [Hook(module_of(upper.lm, name), make_hook(name)) for name in names]
    with Hooks(hooks), torch.enable_grad():
        losses = target_nll(upper.logits(), [text.target_ids for text in texts])
        gradients = dict(zip(names, torch.autograd.grad(losses.sum(), [offsets[name] for name in names]), strict=True))
    rows: list[Factors] = [{} for _ in texts]
    for name in names:
        u, delta = (widen(tensor.reshape(shape)) for tensor in (inputs[name], gradients[name]))  # (B, T, d)
        for i, row in enumerate(rows):
            with_gradient = (delta[i] != 0).any(dim=-1)
            kept = (
                upper.mask[i].bool().to(delta.device) & with_gradient if tokens is None else tokens[i].to(delta.device)
            )
            row[name] = (u[i][kept], delta[i][kept])
    return rows, losses.detach()
