"""The slices of the real task files load record by record."""

import csv
import json
from itertools import groupby

import pytest

from workbench.data.tasks.examples import (
    ClosedQAExample,
    NERExample,
    NLIExample,
    OpenQAExample,
    SentimentExample,
    SummarizationExample,
)
from workbench.data.tasks.load import load_task

REAL_FILES = [  # task, file or folder, source, split, records, as the data's README counts them
    ("reasoning", "gsm8k/test-reasoning.jsonl", "test-reasoning.jsonl", "test", 150),
    ("nli", "rte/test-NLI.tsv", "test-NLI.tsv", "train", 150),
    ("nli", "rte/superglue_val.jsonl", "rte/superglue_val.jsonl", "dev", 60),
    ("open_qa", "nq_open/test-OpenDomainQA.jsonl", "test-OpenDomainQA.jsonl", "dev", 150),
    ("open_qa", "nq_open/NQ-open.dev.jsonl", "NQ-open.dev.jsonl", "dev", 150),
    ("open_qa", "nq_open/nq-open-oracle.jsonl", "nq-open-oracle.jsonl", "dev", 80),
    ("closed_qa", "boolq/test-ClosedDomainQA.jsonl", "test-ClosedDomainQA.jsonl", "dev", 150),
    ("closed_qa", "boolq/superglue_val.jsonl", "boolq/superglue_val.jsonl", "dev", 60),
    ("dialogue", "mutual/test-dialogue", "test-dialogue", "dev", 100),
    ("summarization", "samsum/test-summarization.json", "test-summarization.json", "validation", 150),
    ("ner", "conll2003/test-NER.txt", "test-NER.txt", "validation", 168),
    ("ner", "conll2003/eng.testb", "eng.testb", "test", 74),
    ("sentiment", "sst2/test-SentimentAnalysis.tsv", "test-SentimentAnalysis.tsv", "dev", 150),
]


@pytest.mark.parametrize(("task", "name", "source", "split", "records"), REAL_FILES)
def test_every_record_of_a_real_file_is_usable(shared_data, task, name, source, split, records):
    found = load_task(task, shared_data / name)
    assert (found.source, found.split) == (source, split)
    assert (len(found), found.rejected) == (records, ())


@pytest.mark.parametrize("task", dict.fromkeys(row[0] for row in REAL_FILES))
def test_in_the_folder_of_all_the_paper_s_copy_is_found(shared_data, task):
    source, split, records = next(row[2:] for row in REAL_FILES if row[0] == task and row[2].startswith("test-"))
    found = load_task(task, shared_data)
    assert (found.source, found.split, len(found)) == (source, split, records)


def lines_of(path) -> list[dict]:
    """Read JSON lines without our reader."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_first_real_word_problem_loses_its_notes_and_its_mark(shared_data):
    first = load_task("reasoning", shared_data / "gsm8k").examples[0]
    assert first.question.startswith("Janet’s ducks lay 16 eggs per day.")
    assert first.reasoning == (
        "Janet sells 16 - 3 - 4 = 9 duck eggs a day.\nShe makes 9 * 2 = $18 every day at the farmer’s market."
    )
    assert first.answer == "18"


def test_real_answers_are_plain_numbers_and_no_note_is_left(shared_data):
    examples = load_task("reasoning", shared_data / "gsm8k").examples
    records = lines_of(shared_data / "gsm8k/test-reasoning.jsonl")
    assert sum("," in record["answer"].split("####")[1] for record in records) == 1  # ' 2,125'
    assert [float(e.answer) for e in examples] == [
        float(record["answer"].split("#### ")[1].replace(",", "")) for record in records
    ]
    assert sum("<<" in record["answer"] for record in records) > 140
    assert [e for e in examples if "<<" in e.reasoning or "#" in e.reasoning] == []


def test_quoting_does_not_change_the_real_rte_rows(shared_data):
    path = shared_data / "rte/test-NLI.tsv"
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    rows = [tuple(line.split("\t")[1:]) for line in lines]
    with open(path, encoding="utf-8", newline="") as file:
        quoted = [tuple(row[1:]) for row in csv.reader(file, delimiter="\t")][1:]
    assert sum(row != other for row, other in zip(rows, quoted, strict=True)) == 2  # what the README warns of
    names = {True: "entailment", False: "not_entailment"}
    assert [(e.premise, e.hypothesis, names[e.entailment]) for e in load_task("nli", path).examples] == rows


def test_the_first_real_rte_records_are_read_as_written(shared_data):
    assert load_task("nli", shared_data / "rte/test-NLI.tsv").examples[0] == NLIExample(
        "No Weapons of Mass Destruction Found in Iraq Yet.", "Weapons of Mass Destruction Found in Iraq.", False
    )
    first = load_task("nli", shared_data / "rte/superglue_val.jsonl").examples[0]
    assert (first.hypothesis, first.entailment) == ("Christopher Reeve had an accident.", False)


def test_the_first_real_open_questions_are_read_as_written(shared_data):
    folder = shared_data / "nq_open"
    assert load_task("open_qa", folder / "test-OpenDomainQA.jsonl").examples[0] == OpenQAExample(
        "who got the first nobel prize in physics?",
        "The first Nobel Prize in Physics was awarded to Wilhelm Röntgen in recognition of his "
        '"discovery of the remarkable rays subsequently named after him".',
        ("Wilhelm Conrad Röntgen",),
    )
    assert load_task("open_qa", folder / "NQ-open.dev.jsonl").examples[0] == OpenQAExample(
        "when was the last time anyone was on the moon", "", ("14 December 1972 UTC", "December 1972")
    )
    oracle = load_task("open_qa", folder / "nq-open-oracle.jsonl").examples[0]
    assert oracle.passage.startswith(
        "List of Nobel laureates in Physics\nThe first Nobel Prize in Physics was awarded in 1901 to"
    )


def test_gold_passages_hold_an_answer_and_written_ones_often_do_not(shared_data):
    def share(name: str) -> float:
        examples = load_task("open_qa", shared_data / "nq_open" / name).examples
        return sum(any(a.lower() in e.passage.lower() for a in e.answers) for e in examples) / len(examples)

    assert share("nq-open-oracle.jsonl") > 0.9
    assert 0.2 < share("test-OpenDomainQA.jsonl") < 0.5


def test_the_first_real_yes_or_no_question_is_read_in_both_forms(shared_data):
    plain = load_task("closed_qa", shared_data / "boolq/test-ClosedDomainQA.jsonl").examples[0]
    titled = load_task("closed_qa", shared_data / "boolq/superglue_val.jsonl").examples[0]
    assert plain.question == "does ethanol take more energy make that produces"
    assert plain.passage.startswith("All biomass goes through at least some of these steps:")
    assert plain.answer is False
    assert titled == ClosedQAExample(plain.question, f"Ethanol fuel -- {plain.passage}", False)


def test_real_dialogues_stand_in_the_order_of_their_numbers(shared_data):
    folder = shared_data / "mutual/test-dialogue"
    examples = load_task("dialogue", folder).examples
    records = [json.loads((folder / f"dev_{i}.txt").read_text(encoding="utf-8")) for i in range(1, 101)]
    assert [(e.dialogue, list(e.options)) for e in examples] == [(r["article"], r["options"]) for r in records]
    assert ["ABCD"[e.answer] for e in examples] == [r["answers"] for r in records]
    assert examples[0].options[examples[0].answer].startswith("m : i really want to say that your performance")
    assert examples[0].dialogue == examples[2].dialogue


def test_the_first_real_chat_is_read_with_plain_line_ends(shared_data):
    first = load_task("summarization", shared_data / "samsum").examples[0]
    turns = first.dialogue.split("\n")
    assert len(turns) == 17
    assert turns[:2] == ["A: Hi Tom, are you busy tomorrow’s afternoon?", "B: I’m pretty sure I am. What’s up?"]
    assert first.summary.endswith("the son chose the puppy.")


def test_real_chats_keep_their_turns_whichever_way_they_are_parted(shared_data):
    records = json.loads((shared_data / "samsum/test-summarization.json").read_text(encoding="utf-8"))
    examples = load_task("summarization", shared_data / "samsum").examples
    assert 0 < sum("\r\n" in record["dialogue"] for record in records) < 150
    assert examples == tuple(
        SummarizationExample("\n".join(record["dialogue"].strip().splitlines()), record["summary"].strip())
        for record in records
    )


def sentences_of(path) -> list[list[list[str]]]:
    """Split a file of columns into sentences without our reader."""
    lines = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
    cut = [list(group) for filled, group in groupby(lines, key=bool) if filled]
    return [sentence for sentence in cut if sentence[0][0] != "-DOCSTART-"]


def test_real_bio_entities_are_one_for_each_b_tag(shared_data):
    path = shared_data / "conll2003/test-NER.txt"
    examples, sentences = load_task("ner", path).examples, sentences_of(path)
    assert [e.text for e in examples] == [" ".join(word for word, *_ in sentence) for sentence in sentences]
    starts = [[tag[2:] for *_, tag in sentence if tag.startswith("B-")] for sentence in sentences]
    assert [[kind for kind, _ in e.entities] for e in examples] == starts
    assert sum(map(len, starts)) == 300


def test_real_iob1_entities_are_the_runs_of_one_tag(shared_data):
    path = shared_data / "conll2003/eng.testb"
    examples, sentences = load_task("ner", path).examples, sentences_of(path)
    assert not any(tag.startswith("B-") for sentence in sentences for *_, tag in sentence)  # none touch in this slice
    runs = [
        tuple(
            (tag[2:], " ".join(word for word, *_ in run))
            for tag, run in groupby(sentence, key=lambda line: line[-1])
            if tag != "O"
        )
        for sentence in sentences
    ]
    assert [e.entities for e in examples] == runs
    assert sum(map(len, runs)) > 150


def test_the_first_real_tagged_sentences_are_read_as_written(shared_data):
    bio = load_task("ner", shared_data / "conll2003/test-NER.txt").examples
    assert bio[:2] == (
        NERExample("CRICKET - LEICESTERSHIRE TAKE OVER AT TOP AFTER INNINGS VICTORY .", (("ORG", "LEICESTERSHIRE"),)),
        NERExample("LONDON 1996-08-30", (("LOC", "LONDON"),)),
    )
    assert bio[2].entities == (
        ("MISC", "West Indian"),
        ("PER", "Phil Simmons"),
        ("ORG", "Leicestershire"),
        ("ORG", "Somerset"),
    )
    iob1 = load_task("ner", shared_data / "conll2003/eng.testb").examples
    assert iob1[1] == NERExample("Nadim Ladki", (("PER", "Nadim Ladki"),))
    assert iob1[2] == NERExample(
        "AL-AIN , United Arab Emirates 1996-12-06", (("LOC", "AL-AIN"), ("LOC", "United Arab Emirates"))
    )


def test_real_snippets_are_read_without_the_blank_at_their_end(shared_data):
    examples = load_task("sentiment", shared_data / "sst2").examples
    assert examples[:2] == (
        SentimentExample("it 's a charming and often affecting journey .", True),
        SentimentExample("unflinchingly bleak and desperate", False),
    )
    assert sum(e.positive for e in examples) == 75
