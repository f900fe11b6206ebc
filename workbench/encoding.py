"""Text to token ids, with the places that editing and evaluating need, by offset mappings alone.

Prompt and target are encoded together, as running text, so that leading spaces and special tokens fall where each
tokenizer puts them; nothing is found by searching decoded strings.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from workbench.errors import RequestError
from workbench.request import PLACEHOLDER, EditRequest


@dataclass(frozen=True)
class Encoded:
    """Token ids of a prompt and its target.

    Attributes
    ----------
    ids : tuple of int
        Prompt and target, special tokens included.
    n_prompt : int
        How many of them are the prompt; the rest is the target.
    subject_last : int or None
        Index of the subject's last token, where a subject was marked.
    """

    ids: tuple[int, ...]
    n_prompt: int
    subject_last: int | None = None

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The prompt's tokens."""
        return self.ids[: self.n_prompt]

    @property
    def target_ids(self) -> tuple[int, ...]:
        """The target's tokens, as they follow the prompt in running text."""
        return self.ids[self.n_prompt :]

    @property
    def before_targets(self) -> tuple[int, ...]:
        """Indices of the tokens after which the target's tokens are predicted."""
        return tuple(range(self.n_prompt - 1, len(self.ids) - 1))


def join_target(prompt: str, target: str) -> str:
    """Prompt and target as running text: one blank between them, unless the prompt ends in white space."""
    return prompt + ("" if prompt[-1:].isspace() else " ") + target.lstrip()


def encode(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    target: str = "",
    *,
    subject_end: int | None = None,
    add_special_tokens: bool = True,
) -> Encoded:
    """Encode a prompt and the target that follows it.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        A fast tokenizer.
    prompt, target : str
        The target may be empty.
    subject_end : int, optional
        Index of the character after the subject, in the prompt.
    add_special_tokens : bool
        False for a prompt that holds them as text already, such as a chat template's.

    Returns
    -------
    Encoded

    Raises
    ------
    RequestError
        If a target was given and no token of the text belongs to it.
    """
    text = join_target(prompt, target) if target else prompt
    encoding = tokenizer(
        text, return_offsets_mapping=True, return_special_tokens_mask=True, add_special_tokens=add_special_tokens
    )
    places = list(zip(encoding["offset_mapping"], encoding["special_tokens_mask"], strict=True))
    n_prompt = len(places)
    if target:
        # a token that straddles the border is read as the target's first: it is what the running text predicts there
        of_target = [i for i, ((_, end), special) in enumerate(places) if not special and end > len(prompt)]
        if not of_target:
            raise RequestError(
                f"target {target!r} tokenises to nothing after {prompt!r}; give a target with text in it."
            )
        n_prompt = of_target[0]
    last = None
    if subject_end is not None:
        last = max(i for i, ((start, end), special) in enumerate(places) if not special and start < subject_end and end)
    end = len(places) - _closing_specials(places)
    return Encoded(tuple(encoding["input_ids"][:end]), min(n_prompt, end), last)


def _closing_specials(places: list) -> int:
    count = 0
    while count < len(places) and places[-1 - count][1]:
        count += 1
    return count if count < len(places) else 0


def encode_request(
    tokenizer: PreTrainedTokenizerBase, request: EditRequest, *, context: str = PLACEHOLDER, target: str | None = None
) -> Encoded:
    """Encode a request's prompt in a context, with a target (by default the new one), and find its subject.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        A fast tokenizer.
    request : EditRequest
        The subject is where ``{}`` stands in its prompt, however often it occurs elsewhere.
    context : str
        A template with ``{}`` where the prompt goes.
    target : str, optional
        What follows the prompt; `request.target_new` by default.

    Returns
    -------
    Encoded

    Raises
    ------
    RequestError
        If the target tokenises to nothing.
    """
    before, after = context.split(PLACEHOLDER)
    subject_end = len(before) + request.prompt.index(PLACEHOLDER) + len(request.subject)
    prompt = before + request.filled_prompt + after
    return encode(tokenizer, prompt, request.target_new if target is None else target, subject_end=subject_end)


@dataclass(frozen=True)
class Batch:
    """Padded token ids.

    Attributes
    ----------
    ids, mask, positions : Tensor (B, T)
        Token ids, 1 for a token and 0 for padding, and each token's position in its own text.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor

    @property
    def model_inputs(self) -> dict[str, Tensor]:
        """Keyword arguments of a transformers forward pass."""
        return {"input_ids": self.ids, "attention_mask": self.mask, "position_ids": self.positions}


def pad(
    rows: list[tuple[int, ...]], *, align: list[int] | None = None, pad_id: int = 0, device: torch.device | str = "cpu"
) -> Batch:
    """Pad rows so that one chosen token of each stands in the same column.

    Parameters
    ----------
    rows : list of tuple of int
        Token ids.
    align : list of int, optional
        For each row the index of the token to line up; by default the first, which is padding on the right.
        The last token of each row gives padding on the left.
    pad_id : int
        Id written where there is no token; the mask hides it.
    device : torch.device or str
        Where the tensors go.

    Returns
    -------
    Batch
        (B, T), with T = longest part before the aligned token + longest part from it on.
    """
    align = align or [0] * len(rows)
    before = max(align)
    width = before + max(len(row) - at for row, at in zip(rows, align, strict=True))
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)  # (B, T)
    mask = torch.zeros_like(ids)
    for i, (row, at) in enumerate(zip(rows, align, strict=True)):
        start = before - at
        ids[i, start : start + len(row)] = torch.tensor(row)
        mask[i, start : start + len(row)] = 1
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    return Batch(ids.to(device), mask.to(device), positions.to(device))
