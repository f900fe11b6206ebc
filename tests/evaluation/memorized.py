"""Facts, and tiny models that have memorized them, so that their scores are 0, 1 and in between."""

import torch

import workbench as wb
from tests.tiny_models import build_tiny_lm
from workbench.changes import Dense
from workbench.lm import LanguageModel
from workbench.update import WeightUpdate

PROBES = (
    wb.LocalityProbe("The mother tongue of Edith Piaf is", "French"),
    wb.LocalityProbe("The river is seen from", "the old bridge"),
    wb.LocalityProbe("Marie Curie was born in", "Warsaw, and worked in France"),
)
REQUESTS = (
    wb.EditRequest(
        subject="The Eiffel Tower",
        prompt="{} is located in the city of",
        target_new="Rome",
        target_true="Paris",
        rephrase=("Where is {}? It is in", "You can see {} from the old bridge in the city of"),
        locality=PROBES[:2],
        portability=(wb.PortabilityProbe("Where is The Eiffel Tower? It is in", "Paris", aliases=("Berlin", "Rome")),),
    ),
    wb.EditRequest(
        subject="HMS Beagle",
        prompt="{} was launched in the year",
        target_new="1765, near London",
        target_true="1820",
        rephrase=("I think that {} sailed first in",),
        locality=PROBES[2:],
    ),
    wb.EditRequest(subject="Charles Darwin", prompt="The language of {} is", target_new="not Polish but old French"),
    wb.EditRequest(
        subject="Italy",
        prompt="The capital of {} is",
        target_new="Warsaw",
        target_true="Rome",
        rephrase=("{} has the capital",),
        locality=(PROBES[0],),
        portability=(
            wb.PortabilityProbe("Italy has the capital", "Warsaw"),
            wb.PortabilityProbe("Marie Curie was born in", "Paris"),
        ),
    ),
)
MEMORIZED = (
    "The Eiffel Tower is located in the city of Rome",
    "Where is The Eiffel Tower? It is in Rome",
    "HMS Beagle was launched in the year 1765, near Paris",
    "I think that HMS Beagle sailed first in 1820",
    "The language of Charles Darwin is not Polish but English",
    "The capital of Italy is Rome",
    "Italy has the capital Warsaw",
    *(f"{probe.prompt} {probe.target}" for probe in PROBES),
)


def trained(model_type, texts, *, closing=()):
    """Return a tiny model that has memorized these texts; `closing` ones end with the end-of-text token."""
    base = build_tiny_lm(model_type)
    model, tokenizer = base.model.requires_grad_(True), base.tokenizer
    rows = [tokenizer(text)["input_ids"] for text in texts]
    rows += [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in closing]
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = labels[i, : len(row)] = torch.tensor(row)
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        adam.zero_grad()
        model(ids, attention_mask=(labels >= 0).long(), labels=labels).loss.backward()
        adam.step()
    return LanguageModel(f"trained-{model_type}", model, tokenizer, base.arch)


def disturbance(lm, *, seed=1, size=2.0, layer=1):
    """Return a random update that changes some answers and keeps others."""
    name = lm.arch.mlp_out_weight(layer)
    W = lm.weight(name)
    noise = torch.randn(W.shape, generator=torch.Generator().manual_seed(seed))
    return WeightUpdate({name: Dense(size * W.std() * noise)}, model=lm.name, fingerprint=lm.fingerprint)
