"""A plain implementation of knowledge neurons: a whole unpadded forward pass for every point, and only loops."""

from collections import Counter

import torch
from torch import Tensor

from tests.helpers import ids_of
from workbench.editing.kn import KN
from workbench.editing.passes.hooks import hooked
from workbench.lm import LanguageModel
from workbench.request import EditRequest


def inner_width(lm: LanguageModel) -> int:
    """Return the input width of the MLP's output projection."""
    return lm.mlp_out(0).weight.shape[0 if lm.arch.conv1d else 1]


def activation_of(lm: LanguageModel, ids: tuple[int, ...], layer: int) -> Tensor:
    """Return the activation (d_ff,) of the last token, by a hook in one whole pass."""
    seen = []
    with torch.no_grad(), hooked(lm.mlp_out(layer), lambda _, args: seen.append(args[0]), before=True):
        lm.model(torch.tensor([ids]))
    return seen[0].reshape(len(ids), -1)[-1]


def probability(lm: LanguageModel, ids: tuple[int, ...], token: int, layer: int, activation: Tensor) -> Tensor:
    """Return the probability of `token` with one layer's activations at the last token replaced, from a whole pass."""

    def replace_last(module, args):
        rows = args[0].reshape(len(ids), -1)
        return (torch.cat([rows[:-1], activation[None]]).reshape(args[0].shape),)

    with hooked(lm.mlp_out(layer), replace_last, before=True):
        return lm.model(torch.tensor([ids])).logits[0, -1].double().softmax(dim=-1)[token]


def plain_scores(lm: LanguageModel, ids: tuple[int, ...], token: int, layer: int, steps: int) -> Tensor:
    """Return the activation times the mean gradient at (k − ½)/m, with one whole pass for each k."""
    activation, total = activation_of(lm, ids, layer), 0
    for k in range(1, steps + 1):
        point = ((k - 0.5) / steps * activation).requires_grad_()
        total = total + torch.autograd.grad(probability(lm, ids, token, layer, point), point)[0]
    return activation * total / steps


def predicted_token(lm: LanguageModel, ids: tuple[int, ...]) -> int:
    """Return the most probable next token that is not special."""
    with torch.no_grad():
        order = lm.model(torch.tensor([ids])).logits[0, -1].argsort(descending=True).tolist()
    return next(token for token in order if token not in lm.tokenizer.all_special_ids)


def coarse_neurons(lm: LanguageModel, kn: KN, prompt: tuple[int, ...], answer: tuple[int, ...]) -> set[tuple[int, int]]:
    """Return (layer, index) of each neuron above the threshold, for the mean of the answer's tokens."""
    scores = {}
    for layer in range(lm.n_layers):
        texts = [(prompt + answer[:n], answer[n]) for n in range(len(answer))]
        mean = sum(plain_scores(lm, ids, token, layer, kn.steps) for ids, token in texts) / len(texts)
        scores |= {(layer, i): float(score) for i, score in enumerate(mean)}
    return {neuron for neuron, score in scores.items() if score > kn.adaptive_threshold * max(scores.values())}


def plain_kn(lm: LanguageModel, kn: KN, request: EditRequest) -> dict[int, Tensor]:
    """Return ΔW (d_model, d_ff) of each layer in float64; `kn` has contexts and no negative prompts."""
    bare = ids_of(lm, request.filled_prompt)
    new = ids_of(lm, f"{request.filled_prompt} {request.target_new}")[len(bare) :]
    old = (predicted_token(lm, bare),)
    if request.target_true is not None:
        old = ids_of(lm, f"{request.filled_prompt} {request.target_true}")[len(bare) :]
    attributed = (predicted_token(lm, bare),) if kn.attributed == "predicted" else old
    counts = Counter()
    for context in kn.contexts:
        counts.update(coarse_neurons(lm, kn, ids_of(lm, context.replace("{}", request.filled_prompt)), attributed))
    least = kn.p
    while max(counts.values()) <= least * len(kn.contexts) + 1e-9:
        least -= 0.05
    head = lm.model.get_output_embeddings() if kn.embeddings == "output" else lm.model.get_input_embeddings()
    e_old, e_new = (sum(head.weight[token].double() for token in ids) for ids in (old, new))
    changes = {}
    for (layer, i), count in counts.items():
        if count <= least * len(kn.contexts) + 1e-9:
            continue
        W = lm.mlp_out(layer).weight.double()
        value = W[i] if lm.arch.conv1d else W[:, i]
        lengths = (value.norm() / e_old.norm(), value.norm() / e_new.norm()) if kn.scale == "value" else (1, 1)
        step = kn.lambda_new * lengths[1] * e_new - kn.lambda_old * lengths[0] * e_old
        turned = kn.signed and activation_of(lm, bare, layer)[i] < 0
        dW = changes.setdefault(layer, torch.zeros(len(value), inner_width(lm), dtype=torch.float64))
        dW[:, i] = -step if turned else step
    return changes
