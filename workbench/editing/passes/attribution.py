"""Knowledge attribution: how much each MLP neuron contributes to the probability of an answer, by integrated gradients.

A neuron is one entry of the activation that an MLP's output projection reads, whatever its width; in a gated MLP that
is gate times input. Only the activations of the token after which the answer is predicted change, so the tokens before
it are computed once, as attention keys and values, and the blocks below a layer are skipped.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from workbench.editing.passes.hooks import hooked
from workbench.editing.passes.upper_blocks import UpperBlocks, compute_prefix
from workbench.encoding import Batch, Encoded, pad
from workbench.errors import EditError
from workbench.forward import widen
from workbench.lm import LanguageModel

_TEXTS_PER_PASS = 8  # texts whose points share a forward pass
_SHARED_PASSES = 2  # before the passes of each layer: one over the tokens to cache, one over the last token


@dataclass(frozen=True, eq=False)
class Attribution:
    """Contribution of every neuron of every layer to an answer.

    Attributes
    ----------
    scores : Tensor (L, d_ff)
        Integrated gradients. The scores of one layer sum to about the answer's probability minus its probability with
        that layer's activations at zero (completeness; Sundararajan et al. 2017, arXiv 1703.01365). Not in Gemma: the
        norm after its MLP undoes any scaling, so the probability jumps where the path begins, and they sum to about 0.
    activations : Tensor (L, d_ff)
        Activations at the prompt's last token.
    """

    scores: Tensor
    activations: Tensor

    def coarse_neurons(self, adaptive_threshold: float) -> Tensor:
        """Return the neurons that score above a share of the highest score of all layers (Dai et al. 2022, 3.3).

        Parameters
        ----------
        adaptive_threshold : float
            The share, in (0, 1).

        Returns
        -------
        Tensor (L, d_ff)
            Boolean; nowhere true if no score is positive.
        """
        return self.scores > adaptive_threshold * self.scores.max()


def attribute_answers(lm: LanguageModel, texts: Sequence[Encoded], *, steps: int) -> list[Attribution]:
    """Attribute answers to neurons: the mean over their tokens, each given the prompt and the true tokens before it.

    Dai et al. 2022 have answers of one token; the mean is EasyEdit's, which puts the model's own greedy tokens before
    the later ones (and for GPT-2 none at all).

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights; not changed.
    texts : sequence of Encoded
        Prompts, with their answers as targets.
    steps : int
        Number of points of the integral, as in `attribute_tokens`.

    Returns
    -------
    list of Attribution
        One per text; activations are those at the prompt's last token.

    Raises
    ------
    EditError
        If a score is not finite.
    """
    predictions = [(text.ids[: at + 1], text.ids[at + 1]) for text in texts for at in text.before_targets]
    by_token = []
    with tqdm(total=count_passes(lm, len(predictions)), desc="Attribution", unit="pass", leave=False) as bar:
        for i in range(0, len(predictions), _TEXTS_PER_PASS):
            prompts, tokens = zip(*predictions[i : i + _TEXTS_PER_PASS], strict=True)
            by_token += attribute_tokens(lm, prompts, tokens, steps=steps, advance=bar.update)
    attributions, remaining = [], iter(by_token)
    for text in texts:
        of_text = [next(remaining) for _ in text.target_ids]
        scores = torch.stack([attribution.scores for attribution in of_text]).mean(dim=0)
        if not scores.isfinite().all():
            layer = int((~scores.isfinite()).any(dim=1).nonzero()[0])
            raise EditError(f"the attribution scores of layer {layer} are not finite; undo what broke the model.")
        attributions.append(Attribution(scores, of_text[0].activations))
    return attributions


def count_passes(lm: LanguageModel, n_tokens: int) -> int:
    """Return the number of forward passes of an attribution, including those that run only upper blocks.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    n_tokens : int
        Number of tokens of all answers.

    Returns
    -------
    int
    """
    return math.ceil(n_tokens / _TEXTS_PER_PASS) * (_SHARED_PASSES + lm.n_layers)


def attribute_tokens(
    lm: LanguageModel,
    texts: Sequence[tuple[int, ...]],
    tokens: Sequence[int],
    *,
    steps: int,
    advance: Callable[[int], object] | None = None,
) -> list[Attribution]:
    """Attribute one next token of each text to the neurons of every layer, by integrated gradients.

    Dai et al. 2022 (arXiv 2104.08696), section 3.2: Attr(w) = w̄ ∫ ∂P(αw̄)/∂w dα over α from 0 to 1, where P is the
    token's probability and w̄ the activation of the text's last token. As in their code all neurons of a layer are
    scaled together, so that completeness holds for each layer.

    The integral is the midpoint sum, α = (k − ½)/m for k = 1 … m. The paper sums at k/m, its code at (k − 1)/m and
    EasyEdit at m points from 0 to 1: at m = 20 the last layer's sum for one fact on the embedded model is then 0.156,
    0.221 and 0.191, where 0.188 is true and the midpoints give 0.188.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights; not changed.
    texts : sequence of tuple of int
        Token ids of B texts.
    tokens : sequence of int
        The token that follows each text.
    steps : int
        m, at least 1; the m points of a layer, of all texts, are one batch.
    advance : callable, optional
        Called with the number of forward passes that are done, as they are done.

    Returns
    -------
    list of Attribution
        One per text, on the CPU, in float32 or wider.
    """
    inputs, activations, upper = _run_all_layers(lm, texts)
    if advance is not None:
        advance(_SHARED_PASSES)
    index = torch.arange(len(texts), device=upper.ids.device).repeat_interleave(steps)  # (B·m,)
    points = upper.select(index)
    targets = torch.tensor(tokens, device=index.device)[index]
    scores = []
    for layer, (block_input, activation) in enumerate(zip(inputs, activations, strict=True)):
        above = replace(points, layer=layer, block_input=block_input[index.to(block_input.device)])
        scores.append(_integrate_gradients(above, activation, targets, steps).cpu())
        if advance is not None:
            advance(1)
    by_text = torch.stack(scores, dim=1)  # (B, L, d_ff)
    active = torch.stack([activation.to("cpu", by_text.dtype) for activation in activations], dim=1)
    return [Attribution(*pair) for pair in zip(by_text, active, strict=True)]


def _run_all_layers(
    lm: LanguageModel, texts: Sequence[tuple[int, ...]]
) -> tuple[list[Tensor], list[Tensor], UpperBlocks]:
    """Input (B, 1, d_model) and activations (B, d_ff) of every block, and the last tokens with the others cached."""
    inputs: list[Tensor] = []
    activations: list[Tensor] = []

    def keep_input(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs.append(args[0])

    def keep_activation(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        activations.append(args[0].reshape(len(texts), -1))

    ends, pad_id = [len(text) - 1 for text in texts], lm.tokenizer.pad_token_id or 0
    whole = pad(list(texts), align=ends, pad_id=pad_id, device=lm.device)
    before = max(ends)
    last = Batch(whole.ids[:, before:], whole.mask, whole.positions[:, before:])
    prefix = compute_prefix(lm, whole, before)
    with ExitStack() as stack:
        for layer, block in enumerate(lm.blocks):
            stack.enter_context(hooked(block, keep_input, before=True))
            stack.enter_context(hooked(lm.mlp_out(layer), keep_activation, before=True))
        upper = UpperBlocks.compute(lm, last, torch.ones_like(last.ids, dtype=torch.bool), lm.n_layers, prefix=prefix)
    return inputs, activations, upper


def _integrate_gradients(above: UpperBlocks, activation: Tensor, tokens: Tensor, steps: int) -> Tensor:
    """Scores (B, d_ff) of the lowest of the blocks; the rows of `above` are the m points of each text."""
    wider = torch.promote_types(activation.dtype, torch.float32)
    alphas = (torch.arange(steps, device=activation.device, dtype=wider) + 0.5) / steps
    scaled = alphas[None, :, None] * activation[:, None]  # (B, m, d_ff)
    points = scaled.flatten(0, 1).to(activation.dtype).requires_grad_()

    def replace_activation(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (points.reshape(args[0].shape),)

    with torch.enable_grad(), hooked(above.lm.mlp_out(above.layer), replace_activation, before=True):
        logits = above.logits()
        wide = widen(logits)
        nll = torch.nn.functional.cross_entropy(wide, tokens.to(wide.device), reduction="none")
        (gradient,) = torch.autograd.grad((-nll).exp().sum(), points)
    return activation.to(wider) * gradient.to(wider).unflatten(0, (-1, steps)).mean(dim=1)
