"""Answers of a model to many prompts: greedy continuations, and log-likelihoods of given texts; used by the tasks.

Prompts are run in batches of similar length. A prefix that all prompts share is run once, and so are longer prefixes
that only some share. Only the logits at the last token are computed; continuations are decoded together and stop
independently. Neither padding nor batch size changes an answer. Answers of the unedited model are kept, by content, in
`lm.memo`.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import torch
from tqdm.auto import tqdm

from workbench.encoding import encode, join_target
from workbench.evaluation.decoding import Prefilled, decode_text, end_ids
from workbench.lm import LanguageModel

_MIN_PREFIX = 8  # tokens; a shorter prefix is not worth a forward pass of its own
_TOKENS_AT_ONCE = 3072  # per forward pass: beyond, allocating memory costs more time than a larger batch saves


@dataclass(frozen=True)
class Query:
    """A question to a model.

    Attributes
    ----------
    prompt : str
        The text that the model continues, or a message to it.
    options : tuple of str
        Continuations whose log-likelihoods are computed, none of them empty; each is preceded by a space, unless the
        text before it ends in white space.
    reference : str
        The right answer, whose log-likelihood is computed like that of an option; empty for none. It may be one of the
        options, and is not run twice then.
    max_new_tokens : int
        Largest number of tokens of the greedy continuation; 0 for none.
    stop : tuple of str
        Texts that end the continuation; they are cut off.
    chat : bool
        Whether the prompt is a user's message, which is formatted with the model's chat template if it has one.
    lead : str
        First words of the answer to a message; on a line of their own if there is no chat template.
    """

    prompt: str
    options: tuple[str, ...] = ()
    max_new_tokens: int = 0
    stop: tuple[str, ...] = ()
    chat: bool = False
    lead: str = ""
    reference: str = ""


@dataclass(frozen=True)
class Likelihood:
    """Log-likelihood of a text after a prompt.

    Attributes
    ----------
    log_likelihood : float
        Summed over the tokens of the text, in nats.
    n_tokens : int
        Number of its tokens.
    """

    log_likelihood: float
    n_tokens: int


@dataclass(frozen=True)
class Answer:
    """A model's answer to a query.

    Attributes
    ----------
    text : str
        Greedy continuation, without special tokens; empty if none was requested.
    log_likelihoods : tuple of float
        Log-likelihood of each option, summed over its tokens, in nats.
    reference : Likelihood or None
        Log-likelihood of the reference; None if there is none.
    """

    text: str
    log_likelihoods: tuple[float, ...]
    reference: Likelihood | None = None


@dataclass(frozen=True)
class _Row:
    """A query in tokens. Queries with equal rows have equal answers."""

    prompt: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]
    reference: tuple[int, ...]  # empty if there is none
    max_new_tokens: int
    stop: tuple[str, ...]

    @property
    def scored(self) -> tuple[tuple[int, ...], ...]:
        """The texts whose log-likelihoods are computed, each once: the options, then the reference."""
        return tuple(dict.fromkeys((*self.options, self.reference) if self.reference else self.options))

    @property
    def needs_cache(self) -> bool:
        """Whether the answer needs more than the logits at the prompt's last token."""
        return self.max_new_tokens > 1 or any(len(ids) > 1 for ids in self.scored)


def answer_queries(
    lm: LanguageModel,
    queries: Sequence[Query],
    *,
    batch_size: int = 32,
    written: bool = True,
    bar: "tqdm[NoReturn] | None" = None,
) -> list[Answer]:
    """Return the current model's answers to queries.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights; not changed. While no update is applied, answers are kept in its memo and
        taken from there.
    queries : sequence of Query
        The queries, preferably of one task: the longest prefix that all prompts share is run only once.
    batch_size : int
        Number of prompts per forward pass; it affects time and memory, not the answers.
    written : bool
        Whether continuations are decoded. Without them all texts are empty, and queries that have neither options nor a
        reference are not run; the batches, and so the log-likelihoods, are the same to the last bit.
    bar : tqdm, optional
        Progress bar that advances by one per query.

    Returns
    -------
    list of Answer
        One per query.
    """
    rows = [_tokenize(lm, query) for query in queries]
    answers = _recall(lm, rows, written)
    missing = [row for row in dict.fromkeys(rows) if row not in answers]
    if not written:
        answers |= {row: Answer("", ()) for row in missing if not row.scored}
    known, counts = lm.unedited_memo("answers" if written else "likelihoods"), Counter(rows)
    if bar is not None:
        bar.update(sum(counts[row] for row in answers))
    for batch, texts in _prefill(lm, missing, batch_size, written):
        answered = dict(zip(batch, _answer_batch(lm, batch, texts, written), strict=True))
        answers |= answered
        known.update(answered)  # batch by batch, so that an interruption loses little
        if bar is not None:
            bar.update(sum(counts[row] for row in batch))
    return [answers[row] for row in rows]


def _recall(lm: LanguageModel, rows: list[_Row], written: bool) -> dict[_Row, Answer]:
    """Return the answers in the memo; where nothing is to be written, also those that were, without their texts."""
    known = lm.unedited_memo("answers")
    answers = {row: known[row] for row in rows if row in known}
    if written:
        return answers
    scored = lm.unedited_memo("likelihoods")
    without_text = {row: replace(answer, text="") for row, answer in answers.items()}
    return {row: scored[row] for row in rows if row in scored} | without_text


def render_prompt(lm: LanguageModel, query: Query) -> tuple[str, bool]:
    """Return the text that a model continues, and whether its tokenizer must add special tokens.

    It must not if the text comes from a chat template, which contains them.
    """
    if query.chat and lm.tokenizer.chat_template:
        message = [{"role": "user", "content": query.prompt}]
        text = lm.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        return f"{text}{query.lead}", False
    return (f"{query.prompt}\n{query.lead}" if query.lead else query.prompt), True


def count_tokens(lm: LanguageModel, query: Query) -> int:
    """Return the largest number of tokens that a model reads and writes to answer a query."""
    row = _tokenize(lm, query)
    return len(row.prompt) + max(row.max_new_tokens, *map(len, row.scored), 0)


def _tokenize(lm: LanguageModel, query: Query) -> _Row:
    text, special = render_prompt(lm, query)
    prompt = encode(lm.tokenizer, text, add_special_tokens=special).ids
    options = tuple(_option_ids(lm, text, prompt, option, special) for option in query.options)
    reference = _option_ids(lm, text, prompt, query.reference, special) if query.reference else ()
    return _Row(prompt, options, reference, query.max_new_tokens, query.stop)


def _option_ids(
    lm: LanguageModel, prompt: str, prompt_ids: tuple[int, ...], option: str, special: bool
) -> tuple[int, ...]:
    whole = encode(lm.tokenizer, prompt, option, add_special_tokens=special).ids
    if whole[: len(prompt_ids)] == prompt_ids:
        return whole[len(prompt_ids) :]
    # a token spans the end of the prompt: the option is tokenized by itself
    return encode(lm.tokenizer, join_target(prompt, option)[len(prompt) :], add_special_tokens=False).ids


def _prefill(
    lm: LanguageModel, rows: list[_Row], batch_size: int, written: bool
) -> Iterator[tuple[list[_Row], Prefilled]]:
    """Run the prompts in batches; prefixes that all or some of them share are run once.

    Batches without texts to score are only run for what is written after them. They are made in either case, because
    the last bits of a log-likelihood depend on what else is in its batch.
    """
    if not written and not any(row.scored for row in rows):
        return
    shared = _shared_length(rows) if len(rows) > 1 else 0
    start = Prefilled.empty(lm, 1)
    if shared:
        start = start.extend([rows[0].prompt[:shared]])
    for groups in _make_batches(_group_by_prefix(rows, shared), batch_size, shared):
        batch = [row for group in groups for row in group]
        if not (written or batch[0].scored):
            continue
        texts, n_run = _run_prefixes(start, shared, groups)
        rest = [row.prompt[n:] for row, n in zip(batch, n_run, strict=True)]
        yield batch, texts.extend(rest, keep=batch[0].needs_cache)


def _run_prefixes(start: Prefilled, shared: int, groups: list[list[_Row]]) -> tuple[Prefilled, list[int]]:
    """Run the prefix that each group shares; return one text per row, and the number of tokens that are run of each."""
    texts = start.select(torch.zeros(len(groups), dtype=torch.long))
    if len(groups[0]) == 1:
        return texts, [shared] * len(groups)
    ends = [_shared_length(group) for group in groups]
    texts = texts.extend([group[0].prompt[shared:end] for group, end in zip(groups, ends, strict=True)])
    group_of = [i for i, group in enumerate(groups) for _ in group]
    return texts.select(torch.tensor(group_of)), [ends[i] for i in group_of]


def _group_by_prefix(rows: list[_Row], shared: int) -> list[list[_Row]]:
    """Group rows that have most of their prompts after the first `shared` tokens in common."""
    groups: list[list[_Row]] = []
    for row in sorted(rows, key=lambda row: (bool(row.scored), row.prompt)):
        alike = bool(groups) and bool(groups[-1][0].scored) == bool(row.scored)
        same = _shared_length([groups[-1][0], row]) - shared if alike else 0
        if same >= max(_MIN_PREFIX, (len(row.prompt) - shared) / 2):
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _make_batches(groups: list[list[_Row]], batch_size: int, shared: int) -> Iterator[list[list[_Row]]]:
    """Yield batches of groups, or of parts of them, with at most `batch_size` rows of similar lengths.

    Single rows are in other batches than groups of several, and rows with texts to score in other batches than those
    without. Batches of long prompts are smaller: without the first
    `shared` tokens, a batch has at most `_TOKENS_AT_ONCE` tokens.
    """
    parts = [group[i : i + batch_size] for group in groups for i in range(0, len(group), batch_size)]

    def kind(part: list[_Row]) -> tuple[bool, bool, bool]:
        return part[0].needs_cache, len(part) > 1, bool(part[0].scored)

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
    """Length of the prefix that all prompts share, short of the last token of each; 0 if below `_MIN_PREFIX`."""
    low, high = min(row.prompt for row in rows), max(row.prompt for row in rows)  # the pair that differs first
    limit = min(len(row.prompt) for row in rows) - 1
    n = next((i for i in range(limit) if low[i] != high[i]), limit)
    return n if n >= _MIN_PREFIX else 0


def _answer_batch(lm: LanguageModel, rows: list[_Row], texts: Prefilled, written: bool) -> list[Answer]:
    likelihoods = texts.log_likelihoods([row.scored for row in rows])
    continuations = _continue_rows(lm, rows, texts) if written else [""] * len(rows)
    return [_make_answer(*each) for each in zip(rows, continuations, likelihoods, strict=True)]


def _make_answer(row: _Row, text: str, log_likelihoods: list[float]) -> Answer:
    of_text = dict(zip(row.scored, log_likelihoods, strict=True))
    reference = Likelihood(of_text[row.reference], len(row.reference)) if row.reference else None
    return Answer(text, tuple(of_text[option] for option in row.options), reference)


def _continue_rows(lm: LanguageModel, rows: list[_Row], texts: Prefilled) -> list[str]:
    ends = end_ids(lm)

    def is_finished(i: int, tokens: list[int]) -> bool:
        row = rows[i]
        if len(tokens) >= row.max_new_tokens or tokens[-1] in ends:
            return True
        return bool(row.stop) and any(stop in decode_text(lm, tokens) for stop in row.stop)

    return [
        _cut_at(decode_text(lm, tokens), row.stop) if row.max_new_tokens else ""
        for row, tokens in zip(rows, texts.continue_greedily(is_finished), strict=True)
    ]


def _cut_at(text: str, stops: tuple[str, ...]) -> str:
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]
