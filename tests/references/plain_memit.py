"""A plain implementation of MEMIT: one fact after another, every step a whole forward pass with logits for all tokens.

Written independently from the paper; tests compare `workbench.MEMIT` with it, and it is the baseline of
benchmarks/memit.py. Nothing is cached, nothing is skipped, and the update is solved with a general dense solver.
"""

import torch
from scipy.optimize import minimize
from torch import Tensor

from workbench.editing.memit import MEMIT
from workbench.encoding import encode_request, pad
from workbench.lm import LanguageModel
from workbench.request import EditRequest


def plain_target_hidden(lm: LanguageModel, memit: MEMIT, request: EditRequest) -> Tensor:
    """Return z (d_model,) of one request in float64; all prompts are one padded batch, as in the published code."""
    texts = [encode_request(lm.tokenizer, request, context=context) for context in memit.contexts]
    bare = EditRequest(subject=request.subject, prompt="{} is a", target_new=".")
    essence = encode_request(lm.tokenizer, bare, target="")
    rows = [(text.ids[:-1], text.subject_last) for text in texts] + [(essence.ids, essence.subject_last)]
    batch = pad([ids for ids, _ in rows], device=lm.device)
    here = torch.arange(len(rows)), torch.tensor([at for _, at in rows])
    places = [(i, text.n_prompt - 1 + j, t) for i, text in enumerate(texts) for j, t in enumerate(text.target_ids)]
    weights = [1 / len(text.target_ids) / len(texts) for text in texts for _ in text.target_ids]
    i, at, tokens = torch.tensor(places).T
    offset = torch.zeros(lm.model.config.hidden_size, requires_grad=True, dtype=lm.model.dtype, device=lm.device)
    seen = []

    def hook(module, args, output):
        hidden = output[0] if isinstance(output, tuple) else output
        seen.append(hidden[0, rows[0][1]].detach().clone())
        hidden = hidden.clone()
        hidden[here] += offset
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    adam = torch.optim.Adam([offset], lr=memit.v_lr)
    first = None
    for step in range(memit.v_num_grad_steps):
        handle = lm.blocks[memit.layers[-1]].register_forward_hook(hook)
        try:
            log_probs = lm.model(**batch.model_inputs, use_cache=False).logits.log_softmax(dim=-1)
        finally:
            handle.remove()
        now = log_probs[-1, essence.subject_last]
        first = now.detach() if first is None else first
        kl = torch.nn.functional.kl_div(first, now, log_target=True, reduction="sum")
        nll = -log_probs[i, at, tokens] @ torch.tensor(weights).to(log_probs)
        loss = nll + memit.kl_factor * kl + memit.v_weight_decay * offset.norm() / seen[0].norm() ** 2
        if loss < memit.v_loss_threshold or step == memit.v_num_grad_steps - 1:
            break
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            limit = memit.clamp_norm_factor * seen[0].norm()
            if offset.norm() > limit:
                offset *= limit / offset.norm()
    return seen[0].double() + offset.detach().double()


@torch.no_grad()
def plain_memit(
    lm: LanguageModel, memit: MEMIT, requests: list[EditRequest], moments: dict[int, Tensor]
) -> dict[int, Tensor]:
    """Return ΔW (d_out, d_in) of each layer in float64 for one batch of requests; `moments` holds C of each layer."""
    with torch.enable_grad():
        targets = torch.stack([plain_target_hidden(lm, memit, request) for request in requests])
    weights = {layer: lm.weight(lm.arch.mlp_out_weight(layer)) for layer in memit.layers}
    saved = {layer: weight.clone() for layer, weight in weights.items()}
    deltas = {}
    try:
        for done, layer in enumerate(memit.layers):
            keys, hidden = [], []
            for request in requests:
                each = [_ends(lm, request, context, layer, memit.layers[-1]) for context in memit.contexts]
                others = [key for key, _ in each[1:]]
                keys.append((each[0][0] + sum(others) / len(others)) / 2 if others else each[0][0])
                hidden.append(each[0][1])
            K, residual = torch.stack(keys).T, targets - torch.stack(hidden)
            wanted = residual / (len(memit.layers) - done)
            if lm.arch.mlp_norm is not None:
                pairs = zip(requests, wanted, strict=True)
                wanted = torch.stack([_value_change(lm, request, layer, shift) for request, shift in pairs])
            solved = torch.linalg.solve(memit.mom2_update_weight * moments[layer] + K @ K.T, K)
            deltas[layer] = wanted.T @ solved.T
            dW = deltas[layer].T if lm.arch.conv1d else deltas[layer]
            weights[layer].add_(dW.to(weights[layer]))
    finally:
        for layer, weight in weights.items():
            weight.copy_(saved[layer])
    return deltas


def _value_change(lm: LanguageModel, request: EditRequest, layer: int, shift: Tensor) -> Tensor:
    """Return v' − v (d_model,), where v' has v's length and minimizes ‖N(v') − N(v) − shift‖.

    N is the RMS norm after the MLP, by its formula; v' is found by a general minimizer.
    """
    norm = lm.model.get_submodule(lm.arch.block(layer)).post_feedforward_layernorm
    key, _ = _ends(lm, request, "{}", layer, layer)
    value = lm.weight(lm.arch.mlp_out_weight(layer)).double() @ key
    gain = 1 + norm.weight.double()
    length = value.norm()
    wanted = gain * value * len(value) ** 0.5 / length + shift

    def distance(direction):
        v = torch.tensor(direction, requires_grad=True)
        with torch.enable_grad():
            loss = (gain * v * len(v) ** 0.5 / v.norm() - wanted).square().sum()
            (gradient,) = torch.autograd.grad(loss, v)
        return loss.item(), gradient.numpy()

    options = {"maxiter": 5000, "gtol": 1e-12, "ftol": 1e-16}
    others = torch.randn(5, len(value), generator=torch.Generator().manual_seed(0))
    starts = [start.double().numpy() for start in (wanted, gain * wanted, value, *others)]
    tries = [minimize(distance, start, jac=True, method="L-BFGS-B", options=options) for start in starts]
    best = torch.tensor(min(tries, key=lambda each: each.fun).x)
    return best * length / best.norm() - value


def _ends(lm: LanguageModel, request: EditRequest, context: str, layer: int, last: int) -> tuple[Tensor, Tensor]:
    """Return a layer's key and the hidden state after `last` at the subject's last token, from an unpadded pass."""
    encoded = encode_request(lm.tokenizer, request, context=context, target="")
    n, at, seen = len(encoded.ids), encoded.subject_last, {}

    def keep_key(module, args, output):
        seen["key"] = args[0].reshape(n, -1)[at].double()

    def keep_hidden(module, args, output):
        seen["hidden"] = (output[0] if isinstance(output, tuple) else output).reshape(n, -1)[at].double()

    handles = [lm.mlp_out(layer).register_forward_hook(keep_key), lm.blocks[last].register_forward_hook(keep_hidden)]
    lm.model(torch.tensor([encoded.ids], device=lm.device), use_cache=False)
    for handle in handles:
        handle.remove()
    return seen["key"], seen["hidden"]
