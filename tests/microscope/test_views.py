"""The views of lens and trace hold what was computed, rounded, and little enough of it for a page."""

import json

import pytest
import torch

import workbench as wb
from tests.helpers import error_of
from workbench.errors import RequestError, SpecError
from workbench.microscope.lens import LensReading, read_lens, read_lenses
from workbench.microscope.lens_view import TOP, lens_view
from workbench.microscope.trace import KINDS, CausalTrace
from workbench.microscope.trace_view import trace_view

TEXT = "I think that the Eiffel Tower is located in the city of"
WATCH = {"new answer": "Rome", "true answer": "Paris"}
REQUEST = wb.EditRequest(
    subject="The Eiffel Tower", prompt="I think that {} is located in the city of", target_new="Rome"
)


def edited_readings(lm):
    name = lm.arch.mlp_out_weight(1)
    noise = torch.randn(lm.weight(name).shape, generator=torch.Generator().manual_seed(0))
    with wb.WeightUpdate({name: noise}).applied(lm):
        return read_lenses(lm, TEXT, watch=WATCH, top=TOP)


def test_a_cell_lists_its_most_probable_tokens_and_all_from_one_percent_on(tiny_lm):
    readings = edited_readings(tiny_lm)
    data = lens_view(*readings).data
    width = len(data["tokens"])
    for side, reading in zip(data["sides"], readings, strict=True):
        assert len(side["cells"]) == (tiny_lm.n_layers + 1) * width
        for index, cell in enumerate(side["cells"]):
            expected: dict[str, float] = {}
            ids, probabilities = reading.top_ids.flatten(0, 1)[index], reading.top_probabilities.flatten(0, 1)[index]
            for rank, (token, p) in enumerate(zip(ids.tolist(), probabilities.tolist(), strict=True)):
                if rank < 5 or p >= 0.01:
                    word = tiny_lm.tokenizer.decode([token])
                    expected[word] = expected.get(word, 0.0) + p
            found = {data["words"][word]: p / 1000 for word, p in zip(cell[::2], cell[1::2], strict=True)}
            assert found == pytest.approx(expected, abs=0.00051)


def test_the_watched_tokens_have_their_logarithms_at_every_state(tiny_lm):
    readings = edited_readings(tiny_lm)
    data = lens_view(*readings).data
    assert [data["words"][each["word"]] for each in data["watched"]] == [
        tiny_lm.tokenizer.decode([token]) for token in readings[0].watched.values()
    ]
    for side, reading in zip(data["sides"], readings, strict=True):
        found = 10 ** torch.tensor(side["watched"]).T.reshape(reading.log_probs.shape)
        torch.testing.assert_close(found, reading.log_probs.exp(), rtol=0.015, atol=0)


def test_labels_of_one_token_share_a_line(tiny_lm):
    own = read_lenses(tiny_lm, TEXT, watch={})[0].own_id
    reading = read_lens(tiny_lm, TEXT, watch={"new answer": "Rome", "true answer": own, "own answer": own})
    data = lens_view(reading).data
    assert [each["label"] for each in data["watched"]] == ["new answer", "true answer, own answer"]
    assert len(data["sides"][0]["watched"]) == 2
    assert data["sides"][0]["watched"][1][-1] == pytest.approx(
        float(reading.log_probs[-1, -1, 1]) / 2.302585, abs=0.006
    )


def test_the_view_of_one_model_has_one_side(tiny_lm):
    reading = read_lens(tiny_lm, TEXT, watch=WATCH)
    assert [side["name"] for side in lens_view(reading).data["sides"]] == ["before"]
    assert lens_view(reading, reading).data == lens_view(reading).data


def test_a_lens_of_30_layers_and_20_tokens_is_small_enough_for_a_page():
    generator = torch.Generator().manual_seed(0)
    shape = (31, 20)
    ids = torch.stack([torch.randperm(49152, generator=generator)[:TOP] for _ in range(620)]).reshape(*shape, TOP)
    probabilities = torch.rand((*shape, TOP), generator=generator).sort(descending=True).values
    probabilities /= probabilities.sum(dim=-1, keepdim=True)  # flatter, so longer lists, than a model's
    words = {int(i): f" word{i}" for i in ids.flatten()}
    log_probs = -30 * torch.rand((*shape, 3), generator=generator)
    watched = dict(zip("abc", list(words)[:3], strict=True))
    tokens = tuple(f" token{i}" for i in range(20))
    sides = [
        LensReading("text", tokens, words, watched, ids, probabilities, log_probs, log_probs.long()) for _ in range(2)
    ]
    probabilities[..., 10:] = 0.001  # a model leaves few tokens with more than one percent
    assert len(json.dumps(lens_view(*sides).data, separators=(",", ":"))) < 300_000


def test_lenses_of_two_texts_have_no_view(tiny_lm):
    first, second = (read_lens(tiny_lm, text, watch={}) for text in (TEXT, "It is old"))
    assert error_of(RequestError, lens_view, first, second).startswith("the lenses are of two texts, ")


def test_what_a_model_says_is_escaped_where_no_script_runs(tiny_lm):
    reading = read_lens(tiny_lm, TEXT, watch={})
    hostile = dict.fromkeys(reading.words, "<img src=x onerror=alert(1)>")
    view = lens_view(LensReading(**{**vars(reading), "words": hostile}))
    assert "<img" not in view.fallback
    assert "<img" not in view.to_html()
    assert "&lt;img" in view.fallback


def test_a_trace_view_holds_all_effects(tiny_lm):
    traces = [CausalTrace(kind=kind, n_samples=2)(tiny_lm, REQUEST) for kind in KINDS]
    data = trace_view(traces, layer=2).data
    assert data["layer"] == 2
    assert data["subject"] == [traces[0].subject[0], traces[0].subject[-1]]
    assert [kind["name"] for kind in data["kinds"]] == list(KINDS)
    for kind, trace in zip(data["kinds"], traces, strict=True):
        torch.testing.assert_close(torch.tensor(kind["effects"]) / 1000, trace.effects, rtol=0, atol=0.00051)
        assert kind["clean"] == pytest.approx(trace.clean, abs=1e-4)
    assert [kind["window"] for kind in data["kinds"]] == [1, 10, 10]


def test_traces_of_two_facts_have_no_view(tiny_lm):
    other = wb.EditRequest(subject="Edith Piaf", prompt="{} spoke", target_new="English")
    settings = CausalTrace(n_samples=1)
    assert error_of(SpecError, trace_view, []) == "there is no trace to show; give at least one."
    assert error_of(SpecError, trace_view, [settings(tiny_lm, REQUEST), settings(tiny_lm, other)]) == (
        "the traces are of different prompts or answers; show those of one fact together."
    )
