"""Helpers that many tests share: token ids, the loss of a target, copies of all weights, the message of an error."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from workbench.lm import LanguageModel
from workbench.request import EditRequest

FACT = ("--subject", "The Eiffel Tower", "--prompt", "{} is in the city of", "--target", "Rome")  # as options of `edit`
REQUEST = EditRequest("The Eiffel Tower", "{} is in the city of", "Rome")  # the same


def ids_of(lm: LanguageModel, text: str) -> tuple[int, ...]:
    """Return the token ids of a text, special tokens included."""
    return tuple(lm.tokenizer(text)["input_ids"])


def target_nll(lm: LanguageModel, request: EditRequest, *, context: str = "{}") -> Tensor:
    """Return the mean NLL of the target's tokens after the prompt, from one whole unpadded pass; differentiable."""
    prompt = context.replace("{}", request.filled_prompt)
    n_prompt, ids = len(ids_of(lm, prompt)), torch.tensor([ids_of(lm, f"{prompt} {request.target_new}")])
    return cross_entropy(lm.model(ids).logits[0, n_prompt - 1 : -1], ids[0, n_prompt:])


def weights_of(lm: LanguageModel) -> dict[str, Tensor]:
    """Return a copy of every parameter by name."""
    return {name: parameter.detach().clone() for name, parameter in lm.model.named_parameters()}


def assert_same_bits(lm: LanguageModel, weights: dict[str, Tensor]) -> None:
    """Assert that every parameter is exactly the one in `weights`."""
    assert weights
    for name, parameter in lm.model.named_parameters():
        assert torch.equal(parameter, weights[name]), name


def error_of(kind: type[Exception], function: Callable[..., object], *args: object, **kwargs: object) -> str:
    """Return the message of the error of this kind that a call raises."""
    with pytest.raises(kind) as caught:
        function(*args, **kwargs)
    return str(caught.value)


def hooks_and_forwards(lm: LanguageModel) -> tuple[int, list[object]]:
    """Return what a careless hook leaves on a model: the number of hooks, and forwards set on the blocks themselves."""
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in lm.model.modules())
    return hooks, [block.__dict__.get("forward") for block in lm.blocks]
