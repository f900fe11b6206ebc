"""The causal trace, against a plain statement of it with forward hooks on whole, unbatched passes."""

from functools import partial

import pytest
import torch

import workbench as wb
from tests.helpers import error_of, hooks_and_forwards, ids_of
from tests.tiny_models import build_tiny_lm
from workbench.data.facts import load_facts
from workbench.encoding import subject_tokens
from workbench.errors import RequestError, SpecError
from workbench.explorer.progress import Cancelled, ProgressMonitor, passes_counted
from workbench.microscope.trace import KINDS, CausalTrace, embedding_deviation

REQUEST = wb.EditRequest(
    subject="The Eiffel Tower", prompt="I think that {} is located in the city of", target_new="Rome"
)
FIRST = wb.EditRequest(subject="Edith Piaf", prompt="{} spoke", target_new="English")
LAST = wb.EditRequest(subject="Edith Piaf", prompt="The mother tongue of {}", target_new="English")
FEW = {"n_samples": 3, "window": 3}


def module_of(lm, kind, layer):
    names = {"gpt2": "attn", "gptj": "attn", "gpt_neox": "attention"}
    if kind == "attention":
        return getattr(lm.blocks[layer], names.get(lm.model.config.model_type, "self_attn"))
    return lm.blocks[layer] if kind == "state" else lm.mlp_out(layer)


def first_of(output):
    return output[0] if isinstance(output, tuple) else output


def plain_run(lm, ids, hooks):
    """Probabilities after the last token, from one whole pass with forward hooks."""
    handles = [module.register_forward_hook(function) for module, function in hooks]
    with torch.no_grad():
        probabilities = lm.model(torch.tensor([ids])).logits[0, -1].double().softmax(dim=-1)
    for handle in handles:
        handle.remove()
    return probabilities


def plain_trace(lm, request, settings, positions, layers):
    """Restored probabilities (positions, layers), and those of the clean and the corrupted run: one site at a time."""
    ids, subject = ids_of(lm, request.filled_prompt), subject_tokens(lm.tokenizer, request)
    clean_states = {}

    def keep(layer):
        def hook(module, args, output):
            clean_states[layer] = first_of(output).reshape(len(ids), -1).clone()

        return hook

    modules = [module_of(lm, settings.kind, layer) for layer in range(lm.n_layers)]
    clean = plain_run(lm, ids, [(module, keep(layer)) for layer, module in enumerate(modules)])
    answer = int(clean.argmax())
    generator = torch.Generator().manual_seed(settings.seed)
    d_embedding = lm.model.get_input_embeddings().embedding_dim
    noise = settings.noise * embedding_deviation(lm)
    noise = noise * torch.randn((settings.n_samples, len(subject), d_embedding), generator=generator)

    def corrupt(sample):
        def hook(module, args, output):
            output = output.clone()
            for i, position in enumerate(subject):
                output[0, position] += noise[sample, i]
            return output

        return lm.model.get_input_embeddings(), hook

    def put(layer, position):
        def hook(module, args, output):
            states = first_of(output).clone()
            states.reshape(len(ids), -1)[position] = clean_states[layer][position]
            return (states, *output[1:]) if isinstance(output, tuple) else states

        return modules[layer], hook

    def mean(hooks):
        return (
            sum(float(plain_run(lm, ids, [corrupt(sample), *hooks])[answer]) for sample in range(settings.n_samples))
            / settings.n_samples
        )

    def window(layer):
        if settings.kind == "state":
            return [layer]
        start = layer - settings.window // 2
        return [block for block in range(start, start + settings.window) if 0 <= block < lm.n_layers]

    table = [[mean([put(block, at) for block in window(layer)]) for layer in layers] for at in positions]
    return torch.tensor(table), float(clean[answer]), mean([])


@pytest.mark.parametrize("kind", KINDS)
def test_a_trace_is_that_of_the_plain_statement(every_tiny_lm, kind):
    settings = CausalTrace(kind=kind, n_samples=2, window=3, seed=1)
    trace = settings(every_tiny_lm, REQUEST)
    last, end = trace.subject[-1], len(trace.tokens) - 1
    positions, layers = [trace.subject[0], last, end], [0, every_tiny_lm.n_layers - 2]
    expected, clean, corrupted = plain_trace(every_tiny_lm, REQUEST, settings, positions, layers)
    torch.testing.assert_close(trace.restored[positions][:, layers].double(), expected.double(), rtol=1e-4, atol=1e-6)
    assert trace.clean == pytest.approx(clean, rel=1e-4)
    assert trace.corrupted == pytest.approx(corrupted, rel=1e-4)
    assert abs(clean - corrupted) > 1e-4


@pytest.mark.parametrize("request_", [FIRST, LAST], ids=["subject first", "subject last"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_subject_may_open_or_end_the_prompt(tiny_lm, kind, request_):
    settings = CausalTrace(kind=kind, **FEW)
    trace = settings(tiny_lm, request_)
    positions, layers = [trace.subject[0], trace.subject[-1]], list(range(tiny_lm.n_layers))
    expected, _, _ = plain_trace(tiny_lm, request_, settings, positions, layers)
    torch.testing.assert_close(trace.restored[positions].double(), expected.double(), rtol=1e-4, atol=1e-6)


def test_restoring_the_last_state_gives_the_clean_probability(every_tiny_lm):
    trace = CausalTrace(n_samples=3)(every_tiny_lm, REQUEST)
    assert float(trace.restored[-1, -1]) == pytest.approx(trace.clean, rel=1e-5)


def test_restoring_all_that_the_noise_changed_gives_the_clean_probability(tiny_lm):
    # the state of a subject of one token after the first block is all through which the noise reaches later blocks,
    # but for what its neighbors have already read from it in that block: none, where it ends the prompt
    request = wb.EditRequest(subject="s", prompt="The mother tongue of {}", target_new="English")
    trace = CausalTrace(**FEW)(tiny_lm, request)
    assert len(trace.subject) == 1
    torch.testing.assert_close(trace.restored[-1], torch.full((tiny_lm.n_layers,), trace.clean), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_without_noise_nothing_has_an_effect(every_tiny_lm, kind):
    trace = CausalTrace(kind=kind, noise=0, **FEW)(every_tiny_lm, REQUEST)
    assert trace.corrupted == pytest.approx(trace.clean, rel=1e-5)
    assert trace.effects.abs().max() < 1e-5


def test_tokens_before_the_subject_have_no_effect(tiny_lm):
    trace = CausalTrace(**FEW)(tiny_lm, REQUEST)
    assert trace.subject[0] > 1
    assert (trace.effects[: trace.subject[0]] == 0).all()
    assert (trace.effects[trace.subject[0] :] != 0).any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_subjects_last_token_alone_has_the_effects_that_it_has_among_all(tiny_lm, kind):
    whole, alone = (
        CausalTrace(kind=kind, tokens=tokens, **FEW)(tiny_lm, REQUEST) for tokens in ("all", "subject last")
    )
    last = whole.subject[-1]
    torch.testing.assert_close(alone.effects[last], whole.effects[last], rtol=1e-4, atol=1e-7)
    assert alone.restored[[i for i in range(len(whole.tokens)) if i != last]].isnan().all()
    assert set(alone.tabulate()["position"]) == {last}


def test_batches_change_nothing(tiny_lm, monkeypatch):
    whole = CausalTrace(kind="mlp", **FEW)(tiny_lm, REQUEST)
    tiny_lm.memo.section("traces").clear()
    monkeypatch.setattr("workbench.microscope.trace._POSITIONS_AT_ONCE", 1)
    single = CausalTrace(kind="mlp", **FEW)(tiny_lm, REQUEST)
    assert single is not whole
    torch.testing.assert_close(single.restored, whole.restored, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("positions_at_once", [1, 2, 100])
@pytest.mark.parametrize("request_", [REQUEST, FIRST])
@pytest.mark.parametrize("tokens", ["all", "subject last"])
def test_the_number_of_passes_is_known_before(tiny_lm, monkeypatch, positions_at_once, request_, tokens):
    monkeypatch.setattr("workbench.microscope.trace._POSITIONS_AT_ONCE", positions_at_once)
    settings = CausalTrace(tokens=tokens, **FEW)
    embedding_deviation(tiny_lm)
    reported = []
    monitor = ProgressMonitor(reported.append)
    with passes_counted(tiny_lm, monitor):
        settings(tiny_lm, request_)
    assert reported[-1].done == settings.count_passes(tiny_lm, request_)


def test_a_trace_can_be_cancelled_and_leaves_no_hooks(tiny_lm):
    monitor = ProgressMonitor(lambda progress: monitor.cancel() if progress.done == 6 else None)
    with passes_counted(tiny_lm, monitor), pytest.raises(Cancelled):
        CausalTrace(**FEW)(tiny_lm, REQUEST)
    assert hooks_and_forwards(tiny_lm) == (0, [None] * tiny_lm.n_layers)


def test_a_seed_gives_the_same_trace_and_another_one_another(tiny_lm):
    first = CausalTrace(seed=0, **FEW)(tiny_lm, REQUEST)
    assert CausalTrace(seed=0, **FEW)(tiny_lm, REQUEST) is first  # kept
    again = CausalTrace(seed=0, **FEW)(build_tiny_lm(tiny_lm.model.config.model_type), REQUEST)
    assert torch.equal(again.restored, first.restored)
    assert CausalTrace(seed=1, **FEW)(tiny_lm, REQUEST).corrupted != first.corrupted


def test_a_trace_of_an_edited_model_is_not_kept_for_the_unedited_one(tiny_lm):
    unedited = CausalTrace(**FEW)(tiny_lm, REQUEST)
    name = tiny_lm.arch.mlp_out_weight(1)
    noise = torch.randn(tiny_lm.weight(name).shape, generator=torch.Generator().manual_seed(0))
    update = wb.WeightUpdate({name: noise})
    with update.applied(tiny_lm):
        assert CausalTrace(**FEW)(tiny_lm, REQUEST).clean != unedited.clean
    assert CausalTrace(**FEW)(tiny_lm, REQUEST) is unedited


def test_another_answer_is_traced_by_its_first_token(tiny_lm):
    trace = CausalTrace(**FEW)(tiny_lm, REQUEST, answer="Paris, France")
    prompt = ids_of(tiny_lm, REQUEST.filled_prompt)
    mine = ids_of(tiny_lm, f"{REQUEST.filled_prompt} Paris, France")[len(prompt)]
    with torch.no_grad():
        clean = tiny_lm.model(torch.tensor([prompt])).logits[0, -1].softmax(dim=-1)[mine]
    assert trace.clean == pytest.approx(float(clean), rel=1e-5)
    assert trace.answer == tiny_lm.tokenizer.decode([mine])


def test_the_deviation_pools_the_embeddings_of_the_tokens_of_the_bundled_subjects(tiny_lm):
    subjects = {request.subject for request in load_facts().requests}
    assert len(subjects) > 500
    rows = [tiny_lm.tokenizer(subject, add_special_tokens=False)["input_ids"] for subject in subjects]
    weight = tiny_lm.model.get_input_embeddings().weight.double()
    values = torch.cat([weight[row].flatten() for row in rows])
    expected = ((values - values.mean()) ** 2).sum() / (len(values) - 1)
    assert embedding_deviation(tiny_lm) == pytest.approx(float(expected.sqrt()), rel=1e-5)


def test_a_table_has_a_row_for_every_token_and_layer(tiny_lm):
    trace = CausalTrace(kind="mlp", **FEW)(tiny_lm, REQUEST)
    table = trace.tabulate()
    assert len(table) == len(trace.tokens) * tiny_lm.n_layers
    assert set(table["kind"]) == {"mlp"}
    assert sorted(table.loc[table["in_subject"], "position"].unique()) == list(trace.subject)
    row = table[(table["position"] == trace.subject[-1]) & (table["layer"] == 2)].iloc[0]
    assert row["effect"] == pytest.approx(float(trace.restored[trace.subject[-1], 2]) - trace.corrupted, abs=1e-9)


def test_a_window_is_centered_and_cut_off_at_the_ends():
    mlp = CausalTrace(kind="mlp")
    assert mlp.blocks_restored(15, 30) == range(10, 20)
    assert mlp.blocks_restored(2, 30) == range(0, 7)
    assert mlp.blocks_restored(29, 30) == range(24, 30)
    assert CausalTrace(kind="mlp", window=1).blocks_restored(4, 30) == range(4, 5)
    assert CausalTrace().blocks_restored(4, 30) == range(4, 5)


def test_bad_settings_are_one_sentence(tiny_lm):
    unknown = partial(CausalTrace, kind="head")
    assert error_of(SpecError, unknown) == "kind must be one of state, mlp, attention; got 'head'."
    assert error_of(SpecError, CausalTrace, tokens="few") == "tokens must be one of all, subject last; got 'few'."
    assert error_of(SpecError, CausalTrace, noise=-1) == "noise must be at least 0; got -1."
    assert error_of(SpecError, CausalTrace, n_samples=0) == "n_samples must be at least 1; got 0."
    assert error_of(SpecError, CausalTrace, window=0) == "window must be at least 1; got 0."
    whole = wb.EditRequest(subject=None, prompt="It is old", target_new="x")
    assert error_of(RequestError, CausalTrace(), tiny_lm, whole) == (
        "no subject is marked in the prompt 'It is old'; name it."
    )
