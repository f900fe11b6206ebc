"""Token ids of texts, and the positions in them that editing and evaluation need.

Prompt and target are encoded together, as running text, so that each tokenizer puts leading spaces and special tokens
where it wants them. Positions come from the tokenizer's offset mapping, never from a search in decoded text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from workbench.errors import RequestError
from workbench.inputs import require_text
from workbench.request import PLACEHOLDER, EditRequest


@dataclass(frozen=True)
class Encoded:
    """Token ids of a prompt and its target.

    Attributes
    ----------
    ids : tuple of int
        Prompt and target, special tokens included.
    n_prompt : int
        Number of tokens of the prompt; the others are the target.
    subject_last : int or None
        Index of the subject's last token; None if no subject was marked.
    """

    ids: tuple[int, ...]
    n_prompt: int
    subject_last: int | None = None

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """Token ids of the prompt."""
        return self.ids[: self.n_prompt]

    @property
    def target_ids(self) -> tuple[int, ...]:
        """Token ids of the target, as they follow the prompt in running text."""
        return self.ids[self.n_prompt :]

    @property
    def before_targets(self) -> tuple[int, ...]:
        """Indices of the tokens at which the target's tokens are predicted, which are those just before them."""
        return tuple(range(self.n_prompt - 1, len(self.ids) - 1))


def join_target(prompt: str, target: str) -> str:
    """Return prompt and target as running text, with a space between them unless the prompt ends in white space."""
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
        The texts to encode. The target may be empty.
    subject_end : int, optional
        Index of the character after the subject, in the prompt.
    add_special_tokens : bool
        Whether the tokenizer adds its special tokens. False for a prompt that contains them as text, such as that of
        a chat template.

    Returns
    -------
    Encoded

    Raises
    ------
    RequestError
        If a target is given and no token of the text belongs to it.
    """
    for part, name in ((prompt, "the prompt"), (target, "the target")):
        require_text(part, name, RequestError)
    text = join_target(prompt, target) if target else prompt
    encoding = tokenizer(
        text, return_offsets_mapping=True, return_special_tokens_mask=True, add_special_tokens=add_special_tokens
    )
    places = list(zip(encoding["offset_mapping"], encoding["special_tokens_mask"], strict=True))
    n_prompt = len(places)
    if target:
        # a token that spans the end of the prompt is the target's first: running text predicts it there
        of_target = [i for i, ((_, end), special) in enumerate(places) if not special and end > len(prompt)]
        if not of_target:
            raise RequestError(
                f"target {target!r} tokenizes to nothing after {prompt!r}; give a target with text in it."
            )
        n_prompt = of_target[0]
    last = None
    if subject_end is not None:
        last = max(i for i, ((start, end), special) in enumerate(places) if not special and start < subject_end and end)
    end = len(places) - _closing_specials(places)
    return Encoded(tuple(encoding["input_ids"][:end]), min(n_prompt, end), last)


def opening_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return the special tokens that a tokenizer puts before every text; often one or none."""
    with_specials = encode(tokenizer, "a").ids
    return with_specials[: len(with_specials) - len(tokenizer("a", add_special_tokens=False)["input_ids"])]


def _closing_specials(places: Sequence[tuple[tuple[int, int], int]]) -> int:
    """Return the number of special tokens at the end of a text; 0 if it consists of special tokens only."""
    count = 0
    while count < len(places) and places[-1 - count][1]:
        count += 1
    return count if count < len(places) else 0


def encode_request(
    tokenizer: PreTrainedTokenizerBase, request: EditRequest, *, context: str = PLACEHOLDER, target: str | None = None
) -> Encoded:
    """Encode a request's prompt in a context, followed by a target, and locate its subject if it has one.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        A fast tokenizer.
    request : EditRequest
        The request. Its subject is located by the ``{}`` of its prompt, even if the same text occurs elsewhere.
    context : str
        A template with ``{}`` where the prompt goes.
    target : str, optional
        The text that follows the prompt; `request.target_new` by default.

    Returns
    -------
    Encoded

    Raises
    ------
    RequestError
        If the target tokenizes to nothing.
    """
    before, after = context.split(PLACEHOLDER)
    subject_end = None
    if request.subject is not None:
        subject_end = len(before) + request.prompt.index(PLACEHOLDER) + len(request.subject)
    prompt = before + request.filled_prompt + after
    return encode(tokenizer, prompt, request.target_new if target is None else target, subject_end=subject_end)


def subject_tokens(tokenizer: PreTrainedTokenizerBase, request: EditRequest) -> range:
    """Return the indices of the subject's tokens among those of a request's filled prompt.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        A fast tokenizer.
    request : EditRequest
        The request. Tokens that the subject shares with the text around it count as its own.

    Returns
    -------
    range

    Raises
    ------
    RequestError
        If the request has no subject, or no token belongs to it.
    """
    if request.subject is None:
        raise RequestError(f"no subject is marked in the prompt {request.prompt!r}; name it.")
    start = request.prompt.index(PLACEHOLDER)
    end = start + len(request.subject)
    encoding = tokenizer(request.filled_prompt, return_offsets_mapping=True, return_special_tokens_mask=True)
    places = zip(encoding["offset_mapping"], encoding["special_tokens_mask"], strict=True)
    found = [i for i, ((first, last), special) in enumerate(places) if not special and first < end and last > start]
    if not found:
        raise RequestError(f"subject {request.subject!r} tokenizes to nothing; give a subject with text in it.")
    return range(found[0], found[-1] + 1)


def is_first_token(tokenizer: PreTrainedTokenizerBase, request: EditRequest) -> bool:
    """Return whether the subject is a single token that opens the prompt, special tokens left aside.

    Without a beginning-of-text token, that position is an attention sink with a key of its own, and published ROME can
    compute a destructive update for it (Yang et al. 2024, "The Fall of ROME", arXiv 2406.11263).

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        A fast tokenizer.
    request : EditRequest
        The request whose subject is located.

    Returns
    -------
    bool
    """
    return encode_request(tokenizer, request).subject_last == len(opening_ids(tokenizer))


@dataclass(frozen=True)
class Batch:
    """Token ids of several texts, padded to one length.

    Attributes
    ----------
    ids, mask, positions : Tensor (B, T)
        Token ids; 1 for a token and 0 for padding; each token's position in its own text.
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
    """Pad rows of token ids so that one token of each row is in the same column.

    Parameters
    ----------
    rows : list of tuple of int
        Token ids of each text.
    align : list of int, optional
        Index in each row of the token that is aligned. By default the first, which gives padding on the right; the
        last gives padding on the left.
    pad_id : int
        Token id of padding; the mask hides it.
    device : torch.device or str
        Device of the tensors.

    Returns
    -------
    Batch
        (B, T), where T is the longest part before the aligned token plus the longest part from it on.
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
