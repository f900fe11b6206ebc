"""Knowledge attribution: how much each MLP neuron contributes to the probability of an answer, by integrated gradients.

A neuron is one entry of the activation that an MLP's output projection reads, whatever its width; in a gated MLP that
is gate times input. Only the activations of the token after which the answer is predicted move, so the tokens before it
are computed once, as attention keys and values, and the blocks below a layer are left out.
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm.auto import tqdm

from workbench.editing.passes.hooks import hooked
from workbench.editing.passes.upper_blocks import UpperBlocks, prefix_of
from workbench.encoding import Batch, Encoded, pad
from workbench.errors import EditError
from workbench.forward import widened
from workbench.lm import LanguageModel

_AT_ONCE = 8  # texts whose points share a forward pass
_FOR_ALL_LAYERS = 2  # passes before those of each layer: over what is cached, and over the last token


@dataclass(frozen=True, eq=False)
class Attribution:
    """What every neuron of every layer contributes to an answer.

    Attributes
    ----------
    scores : Tensor (L, d_ff)
        Integrated gradients. Those of one layer sum to about the answer's probability less what it is with that
        layer's activations at zero (completeness; Sundararajan et al. 2017, arXiv 1703.01365). Not in Gemma: the norm
        after its MLP undoes any scaling, so the probability jumps where the path begins, and they sum to about 0.
    activations : Tensor (L, d_ff)
        At the prompt's last token.
    """

    scores: Tensor
    activations: Tensor

    def coarse(self, adaptive_threshold: float) -> Tensor:
        """Neurons that score above a share of the highest score of all layers (Dai et al. 2022, section 3.3).

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
    """Attribution of answers: the mean over their tokens, each given the prompt and the answer's tokens before it.

    Dai et al. 2022 have answers of one token; the mean is EasyEdit's, which lets the model's own greedy tokens stand
    before the later ones (and for GPT-2 none at all).

    Parameters
    ----------
    lm : LanguageModel
        As it is now; not changed.
    texts : sequence of Encoded
        Prompts, and their answers as their targets.
    steps : int
        As for `attribute_tokens`.

    Returns
    -------
    list of Attribution
        Activations are those at the prompt's last token.

    Raises
    ------
    EditError
        If a score is not finite.
    """
    places = [(text.ids[: at + 1], text.ids[at + 1]) for text in texts for at in text.before_targets]
    each = []
    with tqdm(total=n_passes(lm, len(places)), desc="Attribution", unit="pass", leave=False) as bar:
        for i in range(0, len(places), _AT_ONCE):
            prompts, tokens = zip(*places[i : i + _AT_ONCE], strict=True)
            each += attribute_tokens(lm, prompts, tokens, steps=steps, bar=bar)
    found, left = [], iter(each)
    for text in texts:
        of_text = [next(left) for _ in text.target_ids]
        scores = torch.stack([attribution.scores for attribution in of_text]).mean(dim=0)
        if not scores.isfinite().all():
            layer = int((~scores.isfinite()).any(dim=1).nonzero()[0])
            raise EditError(f"the attribution scores of layer {layer} are not finite; undo what broke the model.")
        found.append(Attribution(scores, of_text[0].activations))
    return found


def n_passes(lm: LanguageModel, n_tokens: int) -> int:
    """Forward passes that the attribution of some next tokens takes, those of upper blocks alone included.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    n_tokens : int
        Tokens of all answers.

    Returns
    -------
    int
    """
    return math.ceil(n_tokens / _AT_ONCE) * (_FOR_ALL_LAYERS + lm.n_layers)


def attribute_tokens(
    lm: LanguageModel,
    texts: Sequence[tuple[int, ...]],
    tokens: Sequence[int],
    *,
    steps: int,
    bar: tqdm | None = None,
) -> list[Attribution]:
    """Attribution of one next token for each of some texts, by integrated gradients, for every layer.

    Dai et al. 2022 (arXiv 2104.08696), section 3.2: Attr(w) = w̄ ∫ ∂P(αw̄)/∂w dα over α from 0 to 1, where P is the
    token's probability and w̄ the activation of the text's last token. As in their code all neurons of a layer are
    scaled together, so that completeness holds for each layer.

    The integral is the midpoint sum, α = (k − ½)/m for k = 1 … m. The paper sums at k/m, its code at (k − 1)/m and
    EasyEdit at m points from 0 to 1: at m = 20 the last layer's sum for one fact on the embedded model is then 0.156,
    0.221 and 0.191, where 0.188 is true and the midpoints give 0.188.

    Parameters
    ----------
    lm : LanguageModel
        As it is now; not changed.
    texts : sequence of tuple of int
        Token ids, B texts.
    tokens : sequence of int
        What follows each.
    steps : int
        m, at least 1; the m points of a layer, of all texts, are one batch.
    bar : tqdm, optional
        Told of forward passes.

    Returns
    -------
    list of Attribution
        On the CPU, in float32 or wider.
    """
    bar = bar if bar is not None else tqdm(disable=True)
    inputs, activations, upper = _run_once(lm, texts)
    bar.update(_FOR_ALL_LAYERS)
    index = torch.arange(len(texts), device=upper.ids.device).repeat_interleave(steps)  # (B·m,)
    points = upper.rows(index)
    targets = torch.tensor(tokens, device=index.device)[index]
    scores = []
    for layer, (block_input, activation) in enumerate(zip(inputs, activations, strict=True)):
        above = replace(points, layer=layer, block_input=block_input[index.to(block_input.device)])
        scores.append(_integrated_gradients(above, activation, targets, steps).cpu())
        bar.update()
    by_text = torch.stack(scores, dim=1)  # (B, L, d_ff)
    active = torch.stack([activation.to("cpu", by_text.dtype) for activation in activations], dim=1)
    return [Attribution(*pair) for pair in zip(by_text, active, strict=True)]


def _run_once(lm: LanguageModel, texts: Sequence[tuple[int, ...]]) -> tuple[list[Tensor], list[Tensor], UpperBlocks]:
    """Input of every block (B, 1, d_model), activations (B, d_ff), and the last tokens with all before them cached."""
    inputs, activations = [], []

    def keep_input(module, args):
        inputs.append(args[0])

    def keep_activation(module, args):
        activations.append(args[0].reshape(len(texts), -1))

    ends, pad_id = [len(text) - 1 for text in texts], lm.tokenizer.pad_token_id or 0
    whole = pad(list(texts), align=ends, pad_id=pad_id, device=lm.device)
    before = max(ends)
    last = Batch(whole.ids[:, before:], whole.mask, whole.positions[:, before:])
    prefix = prefix_of(lm, whole, before)
    with ExitStack() as stack:
        for layer, block in enumerate(lm.blocks):
            stack.enter_context(hooked(block, keep_input, before=True))
            stack.enter_context(hooked(lm.mlp_out(layer), keep_activation, before=True))
        upper = UpperBlocks.of(lm, last, torch.ones_like(last.ids, dtype=torch.bool), lm.n_layers, prefix=prefix)
    return inputs, activations, upper


def _integrated_gradients(above: UpperBlocks, activation: Tensor, tokens: Tensor, steps: int) -> Tensor:
    """Scores (B, d_ff) of the first of the blocks; the rows of `above` are the m points of each text."""
    wider = torch.promote_types(activation.dtype, torch.float32)
    alphas = (torch.arange(steps, device=activation.device, dtype=wider) + 0.5) / steps
    scaled = alphas[None, :, None] * activation[:, None]  # (B, m, d_ff)
    points = scaled.flatten(0, 1).to(activation.dtype).requires_grad_()

    def stand_in(module, args):
        return (points.reshape(args[0].shape),)

    with torch.enable_grad(), hooked(above.lm.mlp_out(above.layer), stand_in, before=True):
        logits = above.logits()
        wide = widened(logits)
        nll = torch.nn.functional.cross_entropy(wide, tokens.to(wide.device), reduction="none")
        (gradient,) = torch.autograd.grad((-nll).exp().sum(), points)
    return activation.to(wider) * gradient.to(wider).unflatten(0, (-1, steps)).mean(dim=1)
