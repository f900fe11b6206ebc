"""What a model writes after many prompts, and how probable it finds given options: the engine under the tasks.

Prompts go in batches of like length; a beginning that all of them share, or some, is run once; only the logits after
the last token are computed; continuations are decoded together and each stops by itself. Neither padding nor batch size
changes an answer. What the unedited model answers is kept, by content, in `lm.memo`.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from tqdm.auto import tqdm

from workbench.encoding import encode, join_target
from workbench.evaluation.decoding import Prefilled, ends_of_text
from workbench.lm import LanguageModel

_WORTH_A_PASS = 8  # tokens; a shorter beginning is run with what follows it
_TOKENS_AT_ONCE = 3072  # in a forward pass: beyond, memory that comes and goes costs more than a larger batch saves


@dataclass(frozen=True)
class Query:
    """What a model is asked.

    Attributes
    ----------
    prompt : str
        The text that it continues, or a message to it.
    options : tuple of str
        Continuations whose log-likelihood is wanted, none empty; a blank is set before each, unless what they follow
        ends in white space.
    max_new_tokens : int
        Length of the greedy continuation; 0 for none.
    stop : tuple of str
        Texts that end the continuation; they are cut off.
    chat : bool
        Whether the prompt is a user's message, put through the model's chat template where it has one.
    lead : str
        How the answer to a message begins; on a line of its own where there is no chat template.
    """

    prompt: str
    options: tuple[str, ...] = ()
    max_new_tokens: int = 0
    stop: tuple[str, ...] = ()
    chat: bool = False
    lead: str = ""


@dataclass(frozen=True)
class Answer:
    """What a model answers to a query.

    Attributes
    ----------
    text : str
        Its greedy continuation, without special tokens; empty where none was asked for.
    log_likelihoods : tuple of float
        Of each option, summed over its tokens, in nats.
    """

    text: str
    log_likelihoods: tuple[float, ...]


@dataclass(frozen=True)
class _Row:
    """A query in tokens; what makes two queries the same to a model."""

    prompt: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]
    max_new_tokens: int
    stop: tuple[str, ...]

    @property
    def goes_on(self) -> bool:
        """Whether any token is read after the first."""
        return self.max_new_tokens > 1 or any(len(ids) > 1 for ids in self.options)


def answer_queries(
    lm: LanguageModel, queries: Sequence[Query], *, batch_size: int = 32, bar: tqdm | None = None
) -> list[Answer]:
    """The model's answers, as it is now.

    Parameters
    ----------
    lm : LanguageModel
        Not changed. While nothing is applied to it, answers are kept in its memo and taken from there.
    queries : sequence of Query
        Best those of one task: the longest beginning that they share is run only once.
    batch_size : int
        Prompts in one forward pass; changes time and memory alone.
    bar : tqdm, optional
        Advanced by one for each query.

    Returns
    -------
    list of Answer
        One for each query.
    """
    rows = [_row(lm, query) for query in queries]
    known = lm.unedited_memo("answers")
    missing = [row for row in dict.fromkeys(rows) if row not in known]
    if bar is not None:
        bar.update(sum(row in known for row in rows))
    counts = Counter(rows)
    for chosen, texts in _prefilled(lm, missing, batch_size):
        known.update(zip(chosen, _answers(lm, chosen, texts), strict=True))
        if bar is not None:
            bar.update(sum(counts[row] for row in chosen))
    return [known[row] for row in rows]


def rendered(lm: LanguageModel, query: Query) -> tuple[str, bool]:
    """The text that a model continues, and whether its tokenizer is to add special tokens to it.

    A chat template writes them itself.
    """
    if query.chat and lm.tokenizer.chat_template:
        message = [{"role": "user", "content": query.prompt}]
        text = lm.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        return text + query.lead, False
    return (f"{query.prompt}\n{query.lead}" if query.lead else query.prompt), True


def n_tokens(lm: LanguageModel, query: Query) -> int:
    """How many tokens a model reads and writes at most to answer a query."""
    row = _row(lm, query)
    return len(row.prompt) + max(row.max_new_tokens, *map(len, row.options), 0)


def _row(lm: LanguageModel, query: Query) -> _Row:
    text, special = rendered(lm, query)
    prompt = encode(lm.tokenizer, text, add_special_tokens=special).ids
    options = tuple(_option_ids(lm, text, prompt, option, special) for option in query.options)
    return _Row(prompt, options, query.max_new_tokens, query.stop)


def _option_ids(
    lm: LanguageModel, prompt: str, prompt_ids: tuple[int, ...], option: str, special: bool
) -> tuple[int, ...]:
    whole = encode(lm.tokenizer, prompt, option, add_special_tokens=special).ids
    if whole[: len(prompt_ids)] == prompt_ids:
        return whole[len(prompt_ids) :]
    # the tokenizer joins the prompt's end with the option: it is read as it stands alone
    return encode(lm.tokenizer, join_target(prompt, option)[len(prompt) :], add_special_tokens=False).ids


def _prefilled(lm: LanguageModel, rows: list[_Row], batch_size: int) -> Iterator[tuple[list[_Row], Prefilled]]:
    """The prompts in batches, run: the beginning that all share once, that of some which share more once, too."""
    shared = _shared_length(rows) if len(rows) > 1 else 0
    start = Prefilled.nothing(lm, 1)
    if shared:
        start = start.extended([rows[0].prompt[:shared]])
    for parts in _batches(_alike(rows, shared), batch_size, shared):
        chosen = [row for part in parts for row in part]
        texts, done = _begun(start, shared, parts)
        rest = [row.prompt[n:] for row, n in zip(chosen, done, strict=True)]
        yield chosen, texts.extended(rest, keep=chosen[0].goes_on)


def _begun(start: Prefilled, shared: int, parts: list[list[_Row]]) -> tuple[Prefilled, list[int]]:
    """For each row the beginning that its part shares, run, and how many of its tokens that are."""
    texts = start.rows(torch.zeros(len(parts), dtype=torch.long, device=start.mask.device))
    if len(parts[0]) == 1:
        return texts, [shared] * len(parts)
    ends = [_shared_length(part) for part in parts]
    texts = texts.extended([part[0].prompt[shared:end] for part, end in zip(parts, ends, strict=True)])
    of_row = [i for i, part in enumerate(parts) for _ in part]
    return texts.rows(torch.tensor(of_row, device=start.mask.device)), [ends[i] for i in of_row]


def _alike(rows: list[_Row], shared: int) -> list[list[_Row]]:
    """Rows together where most of what comes after the beginning that all share is the same."""
    groups: list[list[_Row]] = []
    for row in sorted(rows, key=lambda row: row.prompt):
        same = _shared_length([groups[-1][0], row]) - shared if groups else 0
        if same >= max(_WORTH_A_PASS, (len(row.prompt) - shared) / 2):
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _batches(groups: list[list[_Row]], batch_size: int, shared: int) -> Iterator[list[list[_Row]]]:
    """Groups, or parts of them, in batches of so many rows and of like lengths; single rows apart from the others.

    Of longer prompts there are fewer rows, so that what comes after the `shared` beginning is `_TOKENS_AT_ONCE`.
    """
    parts = [group[i : i + batch_size] for group in groups for i in range(0, len(group), batch_size)]

    def kind(part: list[_Row]) -> tuple[bool, bool]:
        return part[0].goes_on, len(part) > 1

    batch: list[list[_Row]] = []
    for part in sorted(parts, key=lambda part: (kind(part), len(part[0].prompt))):
        n_rows, longest = sum(map(len, batch)) + len(part), len(part[0].prompt) - shared
        full = n_rows > batch_size or n_rows * longest > _TOKENS_AT_ONCE
        if batch and (full or kind(part) != kind(batch[0])):
            yield batch
            batch = []
        batch.append(part)
    if batch:
        yield batch


def _shared_length(rows: list[_Row]) -> int:
    """Tokens with which all prompts begin, leaving each one of its own; 0 if too few to be worth a pass."""
    low, high = min(row.prompt for row in rows), max(row.prompt for row in rows)  # the two that differ first
    limit = min(len(row.prompt) for row in rows) - 1
    n = next((i for i in range(limit) if low[i] != high[i]), limit)
    return n if n >= _WORTH_A_PASS else 0


def _answers(lm: LanguageModel, rows: list[_Row], texts: Prefilled) -> list[Answer]:
    likelihoods = texts.log_likelihoods([row.options for row in rows])
    written = _written(lm, rows, texts)
    return [Answer(text, tuple(each)) for text, each in zip(written, likelihoods, strict=True)]


def _written(lm: LanguageModel, rows: list[_Row], texts: Prefilled) -> list[str]:
    ends = ends_of_text(lm)

    def finished(i: int, tokens: list[int]) -> bool:
        row = rows[i]
        if len(tokens) >= row.max_new_tokens or tokens[-1] in ends:
            return True
        return bool(row.stop) and any(stop in _decoded(lm, tokens) for stop in row.stop)

    return [
        _cut(_decoded(lm, tokens), row.stop) if row.max_new_tokens else ""
        for row, tokens in zip(rows, texts.continue_greedily(finished), strict=True)
    ]


def _decoded(lm: LanguageModel, tokens: list[int]) -> str:
    return lm.tokenizer.decode(tokens, skip_special_tokens=True)


def _cut(text: str, stops: tuple[str, ...]) -> str:
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]
