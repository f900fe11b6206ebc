"""The bundled task sets are well formed: large enough, balanced, without repetitions, answerable, and our own text."""

import re
from collections import Counter

import pytest

from workbench.data.tasks.formats import TASK_FORMATS
from workbench.data.tasks.load import load_task
from workbench.errors import DataError
from workbench.evaluation.text import normalize_answer

# What each example asks about: the text that the real data sets must not share.
FIRST_TEXT = {
    "reasoning": "question",
    "nli": "premise",
    "open_qa": "question",
    "closed_qa": "question",
    "dialogue": "dialogue",
    "summarization": "dialogue",
    "ner": "text",
    "sentiment": "text",
}
LABEL = {"nli": "entailment", "closed_qa": "answer", "sentiment": "positive"}
LEAST = 60
EXAMPLES = 150


def examples_of(task: str) -> tuple:
    """Return the examples of a bundled set."""
    return load_task(task, "bundled").examples


def plain(text: str) -> str:
    """Return only the words of a text, in lower case."""
    return " ".join(re.findall(r"\w+", text.casefold()))


@pytest.mark.parametrize("task", TASK_FORMATS)
def test_there_are_enough_examples_and_none_twice(task):
    found = load_task(task, "bundled")
    texts = [
        tuple(plain(value) for value in vars(example).values() if isinstance(value, str)) for example in found.examples
    ]
    assert len(found) == EXAMPLES
    assert [text for text, count in Counter(texts).items() if count > 1] == []


@pytest.mark.parametrize("task", TASK_FORMATS)
def test_no_text_has_blanks_around_it(task):
    texts = [value for e in examples_of(task) for value in vars(e).values() if isinstance(value, str)]
    assert len(texts) >= LEAST
    assert [text for text in texts if text != text.strip() or "  " in text] == []


@pytest.mark.parametrize(("task", "field"), LABEL.items())
def test_labels_are_balanced(task, field):
    counts = Counter(getattr(example, field) for example in examples_of(task))
    assert abs(counts[True] - counts[False]) <= 2


def test_right_turns_are_spread_over_the_four_places():
    counts = Counter(example.answer for example in examples_of("dialogue"))
    assert set(counts) == {0, 1, 2, 3}
    assert max(counts.values()) - min(counts.values()) <= 2


def test_the_four_turns_differ():
    assert [e for e in examples_of("dialogue") if len(set(map(plain, e.options))) < 4] == []


def test_the_right_turn_is_not_given_away_by_its_length():
    examples = examples_of("dialogue")
    longest = sum(max(range(4), key=lambda i: len(e.options[i])) == e.answer for e in examples)
    assert longest <= len(examples) / 2


def test_the_last_number_of_the_reasoning_is_the_answer():
    wrong = []
    for example in examples_of("reasoning"):
        numbers = re.findall(r"-?\d+(?:,\d{3})*(?:\.\d+)?", example.reasoning)
        if not numbers or float(numbers[-1].replace(",", "")) != float(example.answer):
            wrong.append(example)
    assert wrong == []


def test_what_the_reasoning_computes_is_right():
    # every "a op b = c" in plain numbers
    step = re.compile(
        r"(?<![\d.] [-+*/x×÷] )(?<![\d.,])(\d[\d,.]*) ([-+*/x×÷]) \$?(\d[\d,.]*) = \$?(\d[\d,]*(?:\.\d+)?)"
    )
    compute = {
        "+": lambda a, b: a + b,
        "-": lambda a, b: a - b,
        "*": lambda a, b: a * b,
        "x": lambda a, b: a * b,
        "×": lambda a, b: a * b,
        "/": lambda a, b: a / b,
        "÷": lambda a, b: a / b,
    }
    steps = [found for e in examples_of("reasoning") for found in step.findall(e.reasoning)]
    assert len(steps) >= LEAST
    numbers = [(op, *(float(text.replace(",", "").rstrip(".")) for text in (a, b, c))) for a, op, b, c in steps]
    assert [row for row in numbers if abs(compute[row[0]](row[1], row[2]) - row[3]) > 0.006] == []


def test_an_answer_is_in_the_passage_and_not_in_the_question():
    wrong = []
    for example in examples_of("open_qa"):
        passage, question = f" {normalize_answer(example.passage)} ", f" {normalize_answer(example.question)} "
        answers = [f" {normalize_answer(answer)} " for answer in example.answers]
        if not any(answer in passage for answer in answers) or any(answer in question for answer in answers):
            wrong.append(example)
    assert wrong == []


def test_surfaces_are_whole_words_of_the_text_in_its_order():
    wrong = []
    for example in examples_of("ner"):
        pattern = ".*?".join(rf"(?<!\w){re.escape(surface)}(?!\w)" for _, surface in example.entities)
        if not re.search(pattern, example.text):
            wrong.append(example)
    assert wrong == []


def test_every_type_of_entity_is_there_often():
    counts = Counter(kind for example in examples_of("ner") for kind, _ in example.entities)
    assert set(counts) == {"PER", "LOC", "ORG", "MISC"}
    assert min(counts.values()) >= 15


def test_summaries_are_shorter_than_what_they_sum_up():
    examples = examples_of("summarization")
    assert [e for e in examples if len(e.summary.split()) >= len(e.dialogue.split())] == []


def test_every_chat_has_several_turns():
    assert [e for e in examples_of("summarization") if len(e.dialogue.split("\n")) < 3] == []


@pytest.mark.parametrize(("task", "field"), FIRST_TEXT.items())
def test_no_text_is_shared_with_the_real_data(shared_data, task, field):
    try:
        real = load_task(task, shared_data).examples
    except DataError as err:
        pytest.skip(f"no real slice to compare with: {err}")
    assert len(real) >= LEAST
    own = {plain(getattr(example, field)) for example in examples_of(task)}
    assert own & {plain(getattr(example, field)) for example in real} == set()
