"""The natural protocols: what ends an answer, what does not, and what counts as giving one."""

from dataclasses import replace

import pytest
import torch

import workbench as wb
from tests.evaluation.memorized import MEMORIZED, REQUESTS, disturbance, trained
from tests.tiny_models import build_tiny_lm
from workbench.evaluation.edits import PROTOCOLS
from workbench.evaluation.natural import (
    MAX_NEW_TOKENS,
    NATURAL_PROTOCOLS,
    QA_TEMPLATE,
    answer_naturally,
    answer_unedited,
)
from workbench.lm import LanguageModel

PERIOD, LINE, BLANK_LINE, ENDING = "The capital of Italy is", "It is located in", "Therefore, the old", "You see"
TEXTS = (
    f"{PERIOD} Rome. It is old.\nParis",
    f"{LINE} Paris\nFrance Rome",
    f"{BLANK_LINE}\n\n Rome is old\nParis",
)
CHAT = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %} [assistant]"


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def lm(request):
    """Give a model that has memorized `TEXTS`, and one text that ends with the end-of-text token."""
    return trained(request.param, TEXTS, closing=(f"{ENDING} the sea",))


def greedy(lm, text, n_tokens):
    """Return the greedy continuation by transformers, which only the end-of-text token ends."""
    ids = lm.tokenizer(text)["input_ids"]
    said = lm.model.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), do_sample=False, max_new_tokens=n_tokens
    )
    return lm.tokenizer.decode(said[0, len(ids) :], skip_special_tokens=True)


def test_a_period_does_not_end_an_answer(lm):
    assert answer_naturally(lm, [PERIOD]) == ["Rome. It is old."]  # the rest is on another line


def test_a_newline_ends_an_answer(lm):
    assert greedy(lm, LINE, MAX_NEW_TOKENS).strip().startswith("Paris\nFrance")  # it would say more
    assert answer_naturally(lm, [LINE]) == ["Paris"]


def test_empty_lines_before_the_text_do_not_end_an_answer(lm):
    assert answer_naturally(lm, [BLANK_LINE]) == ["Rome is old"]


def test_the_end_of_text_ends_an_answer(lm):
    assert answer_naturally(lm, [ENDING]) == ["the sea"]


def test_decoding_stops_with_the_answer(lm):
    passes = []
    handle = lm.model.register_forward_hook(lambda *_: passes.append(1))
    lm.memo.clear()
    answer_naturally(lm, [ENDING])
    handle.remove()
    assert 1 < len(passes) < MAX_NEW_TOKENS - 5


def test_the_length_limit_ends_an_answer_without_newline(every_tiny_lm):
    prompts = [request.filled_prompt for request in REQUESTS]
    answers = answer_naturally(every_tiny_lm, prompts)
    texts = [greedy(every_tiny_lm, prompt, MAX_NEW_TOKENS) for prompt in prompts]
    assert answers == [next((line.strip() for line in text.split("\n") if line.strip()), "") for text in texts]
    longer = [greedy(every_tiny_lm, prompt, MAX_NEW_TOKENS + 8).strip() for prompt in prompts]
    assert any(answer != text for answer, text in zip(answers, longer, strict=True))


@pytest.fixture(scope="module")
def memorized():
    """Give a model that has memorized the facts."""
    return trained("gpt2", MEMORIZED)


@pytest.mark.parametrize("protocol", list(NATURAL_PROTOCOLS))
def test_the_length_of_the_target_has_no_influence(memorized, protocol, monkeypatch):
    monkeypatch.setattr(memorized.tokenizer, "chat_template", CHAT)
    rows = []
    handle = memorized.model.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(args[0].tolist()), with_kwargs=True
    )
    for target in ("Rome", "the old bridge in the north of the country, near the sea"):
        memorized.memo.clear()
        probe = wb.LocalityProbe("The river is seen from", target)
        request = replace(REQUESTS[0], target_new=target, locality=(probe,))
        wb.score_edits(memorized, [request], protocols=[protocol])
    handle.remove()
    assert len(rows) > 2
    assert rows[: len(rows) // 2] == rows[len(rows) // 2 :]  # the model reads the same tokens


def test_batch_size_never_changes_an_answer(lm):
    prompts = [PERIOD, LINE, BLANK_LINE, ENDING, *(request.filled_prompt for request in REQUESTS)]
    for form in ("bare", "qa"):
        of_sizes = []
        for batch_size in (1, 3, 32):
            lm.memo.clear()
            of_sizes.append(answer_naturally(lm, prompts, form, batch_size=batch_size))
        assert of_sizes[0] == of_sizes[1] == of_sizes[2]


def test_the_forms_put_the_prompt_into_an_instruction_or_a_chat_template(memorized, monkeypatch):
    monkeypatch.setattr(memorized.tokenizer, "chat_template", CHAT)
    prompt = REQUESTS[0].filled_prompt
    texts = {"bare": prompt, "qa": QA_TEMPLATE.format(prompt), "chat": f"[user] {prompt} [assistant]"}
    assert texts["qa"] == f"Please answer the question:\n\nQ: {prompt}\nA:"
    for form, text in texts.items():
        said = greedy(memorized, text, MAX_NEW_TOKENS)
        expected = next((line.strip() for line in said.split("\n") if line.strip()), "")
        assert answer_naturally(memorized, [prompt], form) == [expected]


def test_a_prompt_with_braces_is_left_as_it_is(memorized):
    text = QA_TEMPLATE.replace("{}", "f{0} is {x}")
    assert answer_naturally(memorized, ["f{0} is {x}"], "qa") == [greedy(memorized, text, MAX_NEW_TOKENS).strip()]


def test_without_a_chat_template_the_chat_protocols_give_no_rows(memorized):
    assert memorized.tokenizer.chat_template is None
    table = wb.score_edits(memorized, REQUESTS, protocols=list(NATURAL_PROTOCOLS))
    assert set(table["protocol"]) == {"natural", "natural_exact", "natural_qa", "natural_qa_exact"}
    assert len(wb.score_edits(memorized, REQUESTS, protocols=["natural_chat"])) == 0


def test_every_natural_protocol_can_be_asked_for():
    assert [name for name in PROTOCOLS if name.startswith("natural")] == list(NATURAL_PROTOCOLS)


def test_containment_and_exact_match_share_one_continuation(memorized):
    counts = []
    for protocols in (["natural"], ["natural", "natural_exact"]):
        memorized.memo.clear()
        passes = []
        handle = memorized.model.register_forward_hook(lambda *_, passes=passes: passes.append(1))
        wb.score_edits(memorized, REQUESTS, protocols=protocols)
        handle.remove()
        counts.append(len(passes))
    assert counts[0] == counts[1]


def test_answers_of_an_edited_model_are_not_kept(memorized):
    prompts = [request.filled_prompt for request in REQUESTS]
    copy = LanguageModel("copy", build_tiny_lm("gpt2").model, memorized.tokenizer, memorized.arch)
    copy.model.load_state_dict(memorized.model.state_dict())
    unedited = answer_naturally(memorized, prompts)
    with disturbance(copy, size=4.0).applied(copy):
        edited = answer_naturally(copy, prompts)
        assert answer_unedited(copy, prompts) == unedited
    assert edited != unedited
    assert answer_naturally(copy, prompts) == unedited


# what counts as an answer


@pytest.mark.parametrize(
    ("text", "contains", "exact"),
    [
        ("Rome", True, True),
        ("rome.", True, True),
        ("Rome, Italy. It is old", True, False),
        ("Romeo", False, False),
        ("Paris, not Rome", True, False),
        ("", False, False),
    ],
)
def test_containment_is_wider_than_exact_match(text, contains, exact):
    assert NATURAL_PROTOCOLS["natural"].accepts(text, "Rome") is contains
    assert NATURAL_PROTOCOLS["natural_exact"].accepts(text, "Rome") is exact


@pytest.mark.parametrize(
    ("before", "after", "kept", "kept_exactly"),
    [
        ("Rome, of course", "Rome. It is old", True, False),  # the unedited model knew it, the edited one still does
        ("Rome, of course", "Paris, of course", False, False),
        ("in Italy", "in Italy.", True, True),  # it did not: the text itself must be kept
        ("in Italy", "in Rome", False, False),  # saying the target is not what the unedited model did
        ("", "", True, True),
        ("", "Rome", False, False),
    ],
)
def test_locality_expects_the_answer_of_the_unedited_model(before, after, kept, kept_exactly):
    for name, expected in (("natural", kept), ("natural_exact", kept_exactly)):
        protocol = NATURAL_PROTOCOLS[name]
        assert protocol.accepts(after, protocol.expects_of_unedited(before, "Rome")) is expected


def test_aliases_count_for_the_natural_protocols_only(memorized):
    question = wb.PortabilityProbe("Where is The Eiffel Tower? It is in", "Paris", aliases=("Berlin", "Rome"))
    request = replace(REQUESTS[0], portability=(question,))
    table = wb.score_edits(memorized, [request], protocols=["teacher_forced", "generated", "natural"])
    scores = table[table["metric"] == "portability"].set_index("protocol")["value"]
    assert scores.to_dict() == {"teacher_forced": 0, "generated": 0, "natural": 1}


def test_portability_is_the_mean_over_the_questions_of_a_fact(memorized):
    table = wb.score_edits(memorized, [REQUESTS[3]], protocols=["generated"])
    [value] = table[table["metric"] == "portability"]["value"]
    assert value == 0.5
