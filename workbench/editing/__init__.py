"""Editors: frozen hyperparameters with `compute_update(lm, requests) -> WeightUpdate`; none changes the model."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.editing.alphaedit import AlphaEdit
    from workbench.editing.editor import Editor
    from workbench.editing.emmet import EMMET
    from workbench.editing.ft import FT
    from workbench.editing.kn import KN
    from workbench.editing.lora import LoRA
    from workbench.editing.memit import MEMIT
    from workbench.editing.mend.editor import MEND
    from workbench.editing.rome import ROME
    from workbench.editing.ultraedit import UltraEdit

    # the type checker compares each with the protocol
    _EDITORS: tuple[type[Editor], ...] = (ROME, MEMIT, AlphaEdit, EMMET, KN, MEND, UltraEdit, FT, LoRA)
