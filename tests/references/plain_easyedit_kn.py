"""EasyEdit's knowledge neurons, restated plainly: whole unpadded passes, one point and one token at a time.

After easyeditor/models/kn/knowledge_neurons of zjunlp/EasyEdit: get_scores_for_layer, _generate and modify_weights.
"""

import torch
from torch import Tensor

from workbench.editing.passes.hooks import hooked
from workbench.lm import LanguageModel
from workbench.request import EditRequest


def gate_of(lm: LanguageModel, layer: int) -> torch.nn.Module:
    """Return the projection whose output the code attributes."""
    block = lm.blocks[layer]
    return (
        block.mlp.gate_proj if hasattr(block.mlp, "gate_proj") else getattr(block.mlp, "c_fc", None) or block.mlp.fc_in
    )


def greedy_tokens(lm: LanguageModel, prompt: str, count: int) -> tuple[list[str], list[int]]:
    """Return the texts before each of `count` greedy tokens, and the tokens; every token is glued on as text."""
    texts, tokens = [], []
    for _ in range(count):
        with torch.no_grad():
            logits = lm.model(torch.tensor([lm.tokenizer.encode(prompt)])).logits[0, -1]
        texts.append(prompt)
        tokens.append(int(logits.argmax()))
        prompt = prompt + lm.tokenizer.decode([tokens[-1]])
    return texts, tokens


def scores_of_layer(lm: LanguageModel, layer: int, prompt: str, answer: str, steps: int) -> Tensor:
    """Return the attribution scores of one layer's gate outputs."""
    label = lm.tokenizer.encode(answer)
    texts, _ = greedy_tokens(lm, prompt, len(label))
    if lm.arch.name in ("GPT-2", "GPT-J"):
        texts = [prompt] * len(label)
    total = 0
    for text, token in zip(texts, label, strict=True):
        ids, seen = torch.tensor([lm.tokenizer.encode(text)]), []
        with torch.no_grad(), hooked(gate_of(lm, layer), lambda _, args, output: seen.append(output)):  # noqa: B023
            lm.model(ids)
        value, gradients = seen[0][0, -1], []
        for share in torch.linspace(0, 1, steps):
            point = (share * value).requires_grad_()

            def put(module, args, output):
                return torch.cat([output[:, :-1], point[None, None]], dim=1)  # noqa: B023

            with torch.enable_grad(), hooked(gate_of(lm, layer), put):
                chance = lm.model(ids).logits[0, -1].softmax(dim=-1)[token]
                gradients.append(torch.autograd.grad(chance, point)[0])
        total = total + value * sum(gradients) / steps
    return total / len(label)


def plain_easyedit(lm: LanguageModel, request: EditRequest, *, steps: int, threshold: float) -> dict[int, Tensor]:
    """Return ΔW (d_model, d_ff) of each layer with changed neurons."""
    prompt = request.filled_prompt
    scores = [scores_of_layer(lm, layer, prompt, request.target_true, steps) for layer in range(lm.n_layers)]
    least = threshold * max(float(each.max()) for each in scores)
    new = lm.tokenizer.encode(request.target_new)
    _, old = greedy_tokens(lm, prompt, len(new))
    embeddings = lm.model.get_input_embeddings().weight
    step = torch.zeros(embeddings.shape[1])
    for token in old:
        step = step - embeddings[token] * (2 if len(old) == 1 else 1)
    for token in new:
        step = step + embeddings[token]
    changes = {}
    for layer, each in enumerate(scores):
        for i in range(len(each)):
            if each[i] > least:
                dW = changes.setdefault(layer, torch.zeros(len(step), len(each)))
                dW[:, i] += step
    return changes
