"""Sequences of edits of tiny models, with facts that their tokenizers know."""

import workbench as wb
from workbench.sequence import EditSequence

FACTS = (
    wb.EditRequest("The Eiffel Tower", "{} is located in the city of", "Rome", "Paris"),
    wb.EditRequest("Marie Curie", "{} was born in", "Paris", "Warsaw"),
    wb.EditRequest("Edith Piaf", "The mother tongue of {} is", "Polish", "French"),
    wb.EditRequest("The Louvre", "{} is in", "Italy", "France"),
)


def rome_for(lm):
    return wb.ROME(layer=1, v_num_grad_steps=4, v_lr=0.5, contexts=("{}",))


def make_sequence(lm, n=3, *, regularizer=None, **fields) -> EditSequence:
    """Return a sequence of `n` ROME edits of one fact each."""
    sequence = EditSequence(lm, **fields)
    for fact in FACTS[:n]:
        sequence.edit([fact], rome_for(lm), regularizer)
    return sequence
