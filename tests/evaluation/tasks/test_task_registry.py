"""Properties of all eight tasks: names, order, metrics, ranges."""

import re

import pytest

from workbench.data.tasks.examples import NERExample
from workbench.data.tasks.load import load_task
from workbench.errors import SpecError
from workbench.evaluation.engine import Answer
from workbench.evaluation.tasks import TASKS, find_tasks
from workbench.evaluation.tasks.task import PROTOCOLS, Ratio

ORDER = ["reasoning", "nli", "open_qa", "closed_qa", "dialogue", "summarization", "ner", "sentiment"]
KNOWN = "reasoning, nli, open_qa, closed_qa, dialogue, summarization, ner, sentiment, or all"
TITLES = [
    "Reasoning",
    "NLI",
    "Open-domain QA",
    "Closed-domain QA",
    "Dialogue",
    "Summarization",
    "NER",
    "Sentiment",
]  # as the paper's figures name them
WRITTEN = [
    "",
    " \n",
    " A",
    " yes",
    " True or False",
    " positive",
    " 5, 16 and -8.50",
    " Marie Curie, France",
    " none",
    " in Paris.",
    " ½ × 10² = ٣٤ — 千",
    "<|endoftext|>",
    "\\ {} %s \0",
    " the " * 30,
    "9" * 5000,
]

every_task = pytest.mark.parametrize("task", ORDER)
every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)


def answered(task, example, protocol):
    """Return many invented answers of a model to one example."""
    queries = task.ask(example, protocol)
    for text in WRITTEN:
        for best in range(4):
            yield tuple(
                Answer(
                    text if query.max_new_tokens else "",
                    tuple(-1.0 if i == best else -2.0 - i for i in range(len(query.options))),
                )
                for query in queries
            )


def all_scores(name, protocol, folder):
    task = TASKS[name]
    return [
        task.score(example, answers, protocol)
        for example in load_task(name, folder).examples
        for answers in answered(task, example, protocol)
    ]


def test_the_eight_tasks_are_in_the_papers_order():
    assert list(TASKS) == ORDER
    assert [task.name for task in find_tasks("all")] == ORDER
    assert [task.title for task in find_tasks("all")] == TITLES


def test_tasks_are_found_by_one_name_or_several_in_their_order():
    assert find_tasks("ner") == (TASKS["ner"],)
    assert find_tasks(["sentiment", "nli"]) == (TASKS["sentiment"], TASKS["nli"])


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ("squad", f"no task 'squad'; known: {KNOWN}."),
        (["nli", "NER"], f"no task 'NER'; known: {KNOWN}."),
        (["nli", "all"], f"no task 'all'; known: {KNOWN}."),
        ("", f"no task ''; known: {KNOWN}."),
        ([], f"no task is named; known: {KNOWN}."),
        (("nli", "ner", "nli"), "task 'nli' is named 2 times; name it once."),
    ],
)
def test_unknown_repeated_and_missing_names_are_refused(names, sentence):
    with pytest.raises(SpecError, match=f"^{re.escape(sentence)}$"):
        find_tasks(names)


@every_protocol
@every_task
def test_every_example_has_the_same_metrics_whatever_is_answered(task, protocol, small_sets):
    found = [tuple(scores) for scores in all_scores(task, protocol, small_sets)]
    assert len(found) >= 3 * len(WRITTEN)
    assert len(set(found)) == 1


@every_task
def test_both_protocols_have_the_same_metrics_and_their_headline_among_them(task, small_sets):
    metrics = {protocol: tuple(all_scores(task, protocol, small_sets)[0]) for protocol in PROTOCOLS}
    assert metrics["standard"] == metrics["paper"]
    assert set(TASKS[task].headline) == {"standard", "paper"}
    for protocol in PROTOCOLS:
        assert TASKS[task].headline[protocol] in metrics[protocol]


@every_task
def test_every_task_has_a_valid_rate(task, small_sets):
    assert "valid_rate" in all_scores(task, "standard", small_sets)[0]


@pytest.mark.parametrize("task", ["nli", "closed_qa", "dialogue", "sentiment"])
def test_tasks_with_options_score_accuracy_and_choice_separately(task, small_sets):
    assert {"accuracy", "valid_rate", "choice_accuracy"} <= set(all_scores(task, "paper", small_sets)[0])
    assert TASKS[task].headline == {"standard": "choice_accuracy", "paper": "accuracy"}


@every_protocol
@every_task
def test_scores_lie_between_zero_and_one(task, protocol, small_sets):
    seen = 0
    for scores in all_scores(task, protocol, small_sets):
        for score in scores.values():
            top, bottom = (score.numerator, score.denominator) if isinstance(score, Ratio) else (score, 1)
            assert 0 <= top <= bottom or top == bottom == 0
            seen += 1
    assert seen >= 3 * len(WRITTEN) * len(PROTOCOLS)


@every_task
def test_every_task_has_a_smooth_score_and_those_with_options_an_auc(task):
    assert TASKS[task].smooth == "log_likelihood"
    has_options = task in ("nli", "closed_qa", "dialogue", "sentiment")
    assert TASKS[task].auc == ("choice_auc" if has_options else None)
    assert (TASKS[task].choose is not None) == has_options


def references(task, example, protocol):
    return [query.reference for query in TASKS[task].ask(example, protocol) if query.reference]


@every_protocol
@every_task
def test_the_reference_is_the_right_answer(task, protocol, small_sets):
    turn_or_letter = (lambda e: e.options[e.answer]) if protocol == "standard" else (lambda e: "ABCD"[e.answer])
    right = {
        "reasoning": lambda e: [e.answer],
        "nli": lambda e: [str(e.entailment)],
        "open_qa": lambda e: [e.answers[0]],
        "closed_qa": lambda e: ["yes" if e.answer else "no"],
        "dialogue": lambda e: [turn_or_letter(e)],
        "summarization": lambda e: [e.summary],
        "sentiment": lambda e: ["positive" if e.positive else "negative"],
        "ner": lambda e: [
            ", ".join(surface for kind, surface in e.entities if kind == wanted) or "none"
            for wanted in ("PER", "LOC", "ORG", "MISC")
        ],
    }[task]
    found = load_task(task, small_sets).examples
    assert len(found) >= 3
    for example in found:
        assert references(task, example, protocol) == right(example)


def test_the_reference_of_ner_lists_each_name_once_in_the_order_of_the_text():
    example = NERExample("Ann met Bo and Ann .", (("PER", "Ann"), ("PER", "Bo"), ("PER", "Ann")))
    assert references("ner", example, "standard") == ["Ann, Bo", "none", "none", "none"]


@every_protocol
@every_task
def test_what_is_shown_is_text(task, protocol, small_sets):
    found = load_task(task, small_sets).examples
    shown = [TASKS[task].show(e, answers, protocol) for e in found for answers in answered(TASKS[task], e, protocol)]
    assert len(shown) >= 3 * len(WRITTEN)
    assert all(isinstance(text, str) for pair in shown for text in pair)


def test_the_floor_is_what_guessing_reaches():
    floors = {name: task.floor for name, task in TASKS.items() if task.floor}
    assert floors == {"nli": 1 / 2, "closed_qa": 1 / 2, "dialogue": 1 / 4, "sentiment": 1 / 2}


@every_task
def test_standard_never_gives_the_expected_answer_away(task, small_sets):
    hidden = {
        "reasoning": lambda e: [e.reasoning, e.answer],
        "nli": lambda e: [f"{e.hypothesis} {e.entailment}"],
        "open_qa": lambda e: [] if e.passage else list(e.answers),
        "closed_qa": lambda e: [f"yes\n{e.question}", f"no\n{e.question}"],
        "dialogue": lambda e: [f"answer is {'ABCD'[e.answer]}"],
        "summarization": lambda e: [e.summary],
        "ner": lambda e: [f"Names: {surface}" for _, surface in e.entities],
        "sentiment": lambda e: [f": {'positive' if e.positive else 'negative'}"],
    }[task]
    for example in load_task(task, small_sets).examples:
        asked = " ".join(query.prompt + " " + query.lead for query in TASKS[task].ask(example, "standard"))
        assert [text for text in hidden(example) if text in asked] == []
