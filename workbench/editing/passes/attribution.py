"""Knowledge attribution: how much each MLP neuron contributes to the probability of an answer, by integrated gradients.

A neuron is one entry of the activation that an MLP's output projection reads, whatever its width; in a gated MLP that
is gate times input. EasyEdit reads it before the activation function instead (`IntegralForm`). Only the activations of
the token after which the answer is predicted change, so the tokens before it are computed once, as attention keys and
values, and the blocks below a layer are skipped.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from workbench.editing.passes.hooks import Hook, Hooks
from workbench.editing.passes.upper_blocks import UpperBlocks, compute_prefix
from workbench.encoding import Batch, Encoded
from workbench.errors import EditError
from workbench.forward import pad_texts, widen
from workbench.lm import LanguageModel

_TEXTS_PER_PASS = 8  # texts whose points share a forward pass
NeuronSite = Literal["activation", "gate"]
IntegralPoints = Literal["midpoint", "left", "ends"]
Prediction = tuple[tuple[int, ...], int]  # token ids of a text, and the token that follows it

_SHARED_PASSES = 2  # before the passes of each layer: one over the tokens to cache, one over the last token


@dataclass(frozen=True)
class IntegralForm:
    """Where neurons are read, and at which points the integral from 0 to their values is summed.

    Attributes
    ----------
    neurons : {"activation", "gate"}
        ``"activation"``: what the output projection reads (Dai et al. 2022). ``"gate"``: the output of the gate
        projection, or of the input projection of an MLP without a gate, before the activation function (EasyEdit).
    points : {"midpoint", "left", "ends"}
        The m values of α: (k − ½)/m; (k − 1)/m, as in the code of Dai et al.; or (k − 1)/(m − 1), both ends included,
        as in EasyEdit, where one point is α = 0. The sum is divided by m.
    """

    neurons: NeuronSite = "activation"
    points: IntegralPoints = "midpoint"

    def alphas(self, steps: int) -> Tensor:
        """Return the points (steps,) in float64."""
        if self.points == "ends":
            return torch.linspace(0, 1, steps, dtype=torch.float64)
        shift = 0.5 if self.points == "midpoint" else 0.0
        return (torch.arange(steps, dtype=torch.float64) + shift) / steps


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
        Values of the neurons at the prompt's last token.
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


def attribute_answers(
    lm: LanguageModel, texts: Sequence[Encoded], *, steps: int, form: IntegralForm = IntegralForm()
) -> list[Attribution]:
    """Attribute answers to neurons: the mean over their tokens, each given the prompt and the true tokens before it.

    Dai et al. 2022 have answers of one token; the mean is EasyEdit's.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights; not changed.
    texts : sequence of Encoded
        Prompts, with their answers as targets.
    steps : int
        Number of points of the integral, as in `attribute_tokens`.
    form : IntegralForm
        Neurons and points.

    Returns
    -------
    list of Attribution
        One per text; activations are those at the prompt's last token.

    Raises
    ------
    EditError
        If a score is not finite.
    """
    answers = [[(text.ids[: at + 1], text.ids[at + 1]) for at in text.before_targets] for text in texts]
    return attribute_predictions(lm, answers, steps=steps, form=form)


def attribute_predictions(
    lm: LanguageModel,
    answers: Sequence[Sequence[Prediction]],
    *,
    steps: int,
    form: IntegralForm = IntegralForm(),
) -> list[Attribution]:
    """Attribute answers to neurons: the mean over the tokens of each, whatever stands before a token.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights; not changed.
    answers : sequence of sequence of (tuple of int, int)
        For each answer its tokens, each with the text that it follows.
    steps : int
        Number of points of the integral, as in `attribute_tokens`.
    form : IntegralForm
        Neurons and points.

    Returns
    -------
    list of Attribution
        One per answer; activations are those at the end of its first text.

    Raises
    ------
    EditError
        If a score is not finite.
    """
    predictions = [prediction for answer in answers for prediction in answer]
    by_token = []
    with tqdm(total=count_passes(lm, len(predictions)), desc="Attribution", unit="pass", leave=False) as bar:
        for i in range(0, len(predictions), _TEXTS_PER_PASS):
            prompts, tokens = zip(*predictions[i : i + _TEXTS_PER_PASS], strict=True)
            by_token += attribute_tokens(lm, prompts, tokens, steps=steps, form=form, advance=bar.update)
    attributions, remaining = [], iter(by_token)
    for answer in answers:
        of_answer = [next(remaining) for _ in answer]
        scores = torch.stack([attribution.scores for attribution in of_answer]).mean(dim=0)
        if not scores.isfinite().all():
            layer = int((~scores.isfinite()).any(dim=1).nonzero()[0])
            raise EditError(f"the attribution scores of layer {layer} are not finite; undo what broke the model.")
        attributions.append(Attribution(scores, of_answer[0].activations))
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
    form: IntegralForm = IntegralForm(),
    advance: Callable[[int], object] | None = None,
) -> list[Attribution]:
    """Attribute one next token of each text to the neurons of every layer, by integrated gradients.

    Dai et al. 2022 (arXiv 2104.08696), section 3.2: Attr(w) = w̄ ∫ ∂P(αw̄)/∂w dα over α from 0 to 1, where P is the
    token's probability and w̄ the activation of the text's last token. As in their code all neurons of a layer are
    scaled together, so that completeness holds for each layer.

    By default the integral is the midpoint sum, α = (k − ½)/m for k = 1 … m. The paper sums at k/m, its code at
    (k − 1)/m and EasyEdit at m points from 0 to 1: at m = 20 the last layer's sum for one fact on the embedded model is
    then 0.156, 0.221 and 0.191, where 0.188 is true and the midpoints give 0.188.

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
    form : IntegralForm
        Neurons and points.
    advance : callable, optional
        Called with the number of forward passes that are done, as they are done.

    Returns
    -------
    list of Attribution
        One per text, on the CPU, in float32 or wider.
    """
    inputs, activations, upper = _run_all_layers(lm, texts, form.neurons)
    if advance is not None:
        advance(_SHARED_PASSES)
    index = torch.arange(len(texts)).repeat_interleave(steps)  # (B·m,)
    points = upper.select(index)
    targets = torch.tensor(tokens)[index].to(lm.device)
    scores = []
    for layer, (block_input, activation) in enumerate(zip(inputs, activations, strict=True)):
        above = replace(points, layer=layer, block_input=block_input[index])
        scores.append(_integrate_gradients(above, activation, targets, form, steps))
        if advance is not None:
            advance(1)
    by_text = torch.stack([score.cpu() for score in scores], dim=1)  # (B, L, d_ff)
    active = torch.stack([activation.to("cpu", by_text.dtype) for activation in activations], dim=1)
    return [Attribution(*pair) for pair in zip(by_text, active, strict=True)]


def _neuron_hook(lm: LanguageModel, layer: int, site: NeuronSite, use: Callable[[Tensor], Tensor]) -> Hook:
    """Return a hook that gives the neurons (B, d_ff) of a layer to `use`, and puts what it returns in their place."""
    width = lm.linear_shape(lm.arch.mlp_out_weight(layer))[0]

    def replace_entries(values: Tensor) -> Tensor:
        # a projection that holds gate and input in one, as in Phi-3, begins with the gate
        rows = values.reshape(-1, values.shape[-1])
        return torch.cat([use(rows[:, :width]), rows[:, width:]], dim=1).reshape(values.shape)

    def before_output(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (replace_entries(args[0]),)

    def after_gate(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return replace_entries(output)

    if site == "activation":
        return Hook(lm.mlp_out(layer), before_output, before=True)
    gate = f"{lm.arch.block(layer)}.{lm.arch.mlp_in[0]}"
    return Hook(lm.model.get_submodule(gate), after_gate)


def _run_all_layers(
    lm: LanguageModel, texts: Sequence[tuple[int, ...]], site: NeuronSite
) -> tuple[list[Tensor], list[Tensor], UpperBlocks]:
    """Input (B, 1, d_model) and neurons (B, d_ff) of every block, and the last tokens with the others cached."""
    inputs: list[Tensor] = []
    activations: list[Tensor] = []

    def keep_input(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs.append(args[0])

    def keep_activation(values: Tensor) -> Tensor:
        activations.append(values)
        return values

    ends = [len(text) - 1 for text in texts]
    whole = pad_texts(lm, texts, align=ends)
    before = max(ends)
    last = Batch(whole.ids[:, before:], whole.mask, whole.positions[:, before:])
    prefix = compute_prefix(lm, whole, before)
    hooks = [Hook(block, keep_input, before=True) for block in lm.blocks]
    hooks += [_neuron_hook(lm, layer, site, keep_activation) for layer in range(lm.n_layers)]
    with Hooks(hooks):
        upper = UpperBlocks.compute(lm, last, torch.ones(last.ids.shape, dtype=torch.bool), lm.n_layers, prefix=prefix)
    return inputs, activations, upper


def _integrate_gradients(
    above: UpperBlocks, activation: Tensor, tokens: Tensor, form: IntegralForm, steps: int
) -> Tensor:
    """Scores (B, d_ff) of the lowest of the blocks; the rows of `above` are the m points of each text."""
    wider = torch.promote_types(activation.dtype, torch.float32)
    alphas = form.alphas(steps).to(activation.device, wider)
    scaled = alphas[None, :, None] * activation[:, None]  # (B, m, d_ff)
    points = scaled.flatten(0, 1).to(activation.dtype).requires_grad_()
    hook = _neuron_hook(above.lm, above.layer, form.neurons, lambda _: points)
    with torch.enable_grad(), Hooks([hook]):
        logits = above.logits()
        wide = widen(logits)
        nll = torch.nn.functional.cross_entropy(wide, tokens.to(wide.device), reduction="none")
        (gradient,) = torch.autograd.grad((-nll).exp().sum(), points)
    return activation.to(wider) * gradient.to(wider).unflatten(0, (-1, steps)).mean(dim=1)
