"""Facts, untrained networks and plain passes that the tests of MEND share."""

import torch

import workbench as wb
from tests.helpers import ids_of
from workbench.editing.mend.factors import weights_to_edit
from workbench.editing.mend.network import MendNetwork

REQUEST = wb.EditRequest(subject="The Eiffel Tower", prompt="{} is located in the city of", target_new="Rome, Italy")
LONG = wb.EditRequest(
    subject="HMS Beagle",
    prompt="Because the river is very old, you may ask in which year and in which country {} was launched. It was in",
    target_new="Poland, near the old bridge",
)
EDIT_LR = 0.01


def fresh(lm, **settings):
    return MendNetwork.untrained(lm, weights_to_edit(lm), **{"rank": 4, "edit_lr": EDIT_LR, **settings})


def shaken(lm, seed=0):
    """Networks with every number away from its neutral start, as after training."""
    network, generator = fresh(lm), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            tensor += 0.1 * (noise.abs() if name.endswith("std") else noise)
            if name.endswith((".U", ".V")):  # so that float16, in which they are stored, loses nothing
                tensor.copy_(tensor.half().float())
    return network


PLACES = ("Rome", "Paris", "Warsaw", "France", "Italy, near the sea", "the old country")


def fact(i: int) -> wb.EditRequest:
    return wb.EditRequest(
        subject=f"Tower {i}",
        prompt="{} is located in the city of" if i % 2 else "You may ask where {} is. It is in",
        target_new=PLACES[i % len(PLACES)],
        target_true=PLACES[(i + 1) % len(PLACES)],
        rephrase=("Where is {}? It is in the city of",) if i % 3 else (),
        locality=(wb.LocalityProbe(f"The capital of country {i} is", PLACES[(i + 2) % len(PLACES)]),),
    )


FACTS = [fact(i) for i in range(12)]


@torch.no_grad()
def logits_before_target(lm, prompt, target):
    """Logits (tokens of the target, V) in one whole unpadded pass, and the target's tokens."""
    n_prompt, ids = len(ids_of(lm, prompt)), torch.tensor([ids_of(lm, f"{prompt} {target}")])
    return lm.model(ids).logits[0, n_prompt - 1 : -1], ids[0, n_prompt:]
