"""A plain implementation of ROME: every step runs every whole prompt through all layers, with logits for all tokens.

Written independently from the paper; tests compare `workbench.ROME` with it, and it is the baseline of
benchmarks/rome.py. Nothing is cached and nothing is skipped.
"""

import torch
from torch import Tensor

from workbench.editing.rome import ROME
from workbench.encoding import encode_request, pad
from workbench.lm import LanguageModel
from workbench.request import EditRequest


def plain_rome(lm: LanguageModel, rome: ROME, request: EditRequest, *, prompts_per_pass: int = 1000) -> Tensor:
    """Return ΔW (d_out, d_in) in float64 for one request, with the contexts and hyperparameters of `rome`.

    Both variants, without `mom2_adjustment`. The published code runs all prompts in one padded batch;
    ``prompts_per_pass=1`` runs them one after another, without padding.
    """
    texts = [encode_request(lm.tokenizer, request, context=context) for context in rome.contexts]
    bare = EditRequest(subject=request.subject, prompt="{} is a", target_new=".")
    essence = encode_request(lm.tokenizer, bare, target="")
    rows = [(text.ids[:-1], text.subject_last, text) for text in texts] + [(essence.ids, essence.subject_last, None)]
    passes = [rows[i : i + prompts_per_pass] for i in range(0, len(rows), prompts_per_pass)]
    dtype = lm.model.dtype
    offset = torch.zeros(lm.model.config.hidden_size, requires_grad=True, dtype=dtype)
    keys, values = [], []

    def run(part) -> Tensor:
        """Return log-probabilities (B, T, V) with the offset at each subject's last token."""
        batch = pad([ids for ids, _, _ in part])
        here = torch.arange(len(part)), torch.tensor([at for _, at, _ in part])

        def hook(module, args, output):
            shape = (*batch.ids.shape, -1)
            if len(values) < len(rows):
                keys.extend(args[0].detach().reshape(shape)[here])
                values.extend(output.detach().reshape(shape)[here])
            shaped = output.reshape(shape).clone()
            shaped[here] += offset
            return shaped.reshape(output.shape)

        handle = lm.mlp_out(rome.layer).register_forward_hook(hook)
        try:
            return lm.model(**batch.model_inputs, use_cache=False).logits.log_softmax(dim=-1)
        finally:
            handle.remove()

    adam = torch.optim.Adam([offset], lr=rome.v_lr)
    first = None
    for step in range(rome.v_num_grad_steps):
        loss = torch.zeros((), dtype=dtype)
        for part in passes:
            log_probs = run(part)
            rewriting = [(i, text) for i, (_, _, text) in enumerate(part) if text is not None]
            if rewriting:  # one look-up for the whole pass: each allocates a gradient as large as log_probs
                places = [(i, text.n_prompt - 1 + j, t) for i, text in rewriting for j, t in enumerate(text.target_ids)]
                weights = [1 / len(text.target_ids) / len(texts) for _, text in rewriting for _ in text.target_ids]
                i, at, tokens = torch.tensor(places).T
                loss = loss - log_probs[i, at, tokens] @ torch.tensor(weights, dtype=dtype)
            if part[-1][2] is None:
                now = log_probs[-1, part[-1][1]]
                first = now.detach() if first is None else first
                kl = torch.nn.functional.kl_div(first, now, log_target=True, reduction="sum")
                loss = loss + rome.kl_factor * kl
        loss = loss + rome.v_weight_decay * offset.norm() / values[0].norm() ** 2
        if loss < rome.v_loss_threshold or step == rome.v_num_grad_steps - 1:
            break
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            limit = rome.clamp_norm_factor * values[0].norm()
            if offset.norm() > limit:
                offset *= limit / offset.norm()
    K, V = torch.stack(keys[: len(texts)]).double(), torch.stack(values[: len(texts)]).double()
    u = K.mean(dim=0) / K.mean(dim=0).norm()
    key, value = (K[0], V[0]) if rome.variant == "rome" else (K.mean(dim=0), V.mean(dim=0))
    return torch.outer((V[0] + offset.detach().double() - value) / (u @ key), u)
