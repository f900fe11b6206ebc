"""Facts and untrained networks that the tests of MEND share."""

import torch

import workbench as wb
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
