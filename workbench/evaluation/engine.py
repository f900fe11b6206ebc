"""What a model writes after many prompts, and how probable it finds given options: the engine under the tasks.

Prompts go in batches of like length; a beginning that all of them share is run once; only the logits after the last
token are computed; continuations are decoded together and each stops by itself. Neither padding nor batch size changes
an answer. What the unedited model answers is kept, by content, in `lm.memo`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tqdm.auto import tqdm

from workbench.encoding import encode, join_target
from workbench.evaluation.decoding import Prefilled, Prefix, ends_of_text
from workbench.forward import like_lengths
from workbench.lm import LanguageModel


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
    known = lm.memo.setdefault("answers", {}) if not lm.applied_updates else {}
    missing = [row for row in dict.fromkeys(rows) if row not in known]
    if bar is not None:
        bar.update(sum(row in known for row in rows))
    counts = Counter(rows)
    if missing:
        prefix = Prefix.of(lm, [row.prompt for row in missing])
        # rows that go on keep their attention keys and values, the others need none
        for goes_on in (False, True):
            alike = [row for row in missing if row.goes_on == goes_on]
            for batch in like_lengths([len(row.prompt) for row in alike], batch_size):
                chosen = [alike[i] for i in batch]
                known.update(zip(chosen, _answers(lm, chosen, prefix, keep=goes_on), strict=True))
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


def _answers(lm: LanguageModel, rows: list[_Row], prefix: Prefix, *, keep: bool) -> list[Answer]:
    texts = Prefilled.of(lm, [row.prompt for row in rows], prefix, keep=keep)
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
