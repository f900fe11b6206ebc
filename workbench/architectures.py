"""One row per supported model family: the names and the orientation of its MLP weights.

An MLP maps the residual stream to an inner activation (the *key*, d_ff) by its input projection, and back
(the *value*, d_model) by its output projection. Editors read keys at the input of the output projection and
write into its weight.
"""

from dataclasses import dataclass

from transformers import PretrainedConfig

from workbench.errors import ModelError


@dataclass(frozen=True)
class Architecture:
    """Names and orientation of the weights of a model family that the workbench reads and edits.

    Module names are relative to the causal LM for `blocks`, and to a block for `mlp_in`, `mlp_out`, `attention` and
    `mlp_norm`.
    """

    name: str  # common name of the family
    model_types: tuple[str, ...]  # values of `config.model_type` that this row covers
    blocks: str  # module list of the decoder blocks
    mlp_in: tuple[str, ...]  # projections d_model -> d_ff, in a block; the gate first where there is one
    mlp_out: str  # projection d_ff -> d_model, in a block; its input is the key
    conv1d: bool = False  # True if weights are (d_in, d_out), as in transformers' Conv1D; False for (d_out, d_in)
    mlp_bias: bool = False  # whether the MLP's projections have biases
    mlp_norm: str | None = None  # norm of the value before it is added to the residual stream; None if there is none
    attention: str = "self_attn"  # attention of a block; its first output is added to the residual stream
    position_table: bool = False  # whether positions are rows of a table, so that no text can be longer

    def block(self, layer: int) -> str:
        """Return the module name of decoder block `layer`."""
        return f"{self.blocks}.{layer}"

    def attention_module(self, layer: int) -> str:
        """Return the module name of the attention in block `layer`."""
        return f"{self.block(layer)}.{self.attention}"

    def mlp_out_module(self, layer: int) -> str:
        """Return the module name of the output projection of the MLP in block `layer`."""
        return f"{self.block(layer)}.{self.mlp_out}"

    def mlp_out_weight(self, layer: int) -> str:
        """Return the parameter name of the matrix that ROME and MEMIT edit in block `layer`."""
        return f"{self.mlp_out_module(layer)}.weight"


_GATED = ("mlp.gate_proj", "mlp.up_proj")
_GEMMA_NORM = "post_feedforward_layernorm"

ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture(
        "GPT-2",
        ("gpt2",),
        "transformer.h",
        ("mlp.c_fc",),
        "mlp.c_proj",
        conv1d=True,
        mlp_bias=True,
        attention="attn",
        position_table=True,
    ),
    Architecture(
        "GPT-J",
        ("gptj",),
        "transformer.h",
        ("mlp.fc_in",),
        "mlp.fc_out",
        mlp_bias=True,
        attention="attn",
        position_table=True,
    ),
    Architecture(
        "GPT-NeoX/Pythia",
        ("gpt_neox",),
        "gpt_neox.layers",
        ("mlp.dense_h_to_4h",),
        "mlp.dense_4h_to_h",
        mlp_bias=True,
        attention="attention",
    ),
    Architecture("OPT", ("opt",), "model.decoder.layers", ("fc1",), "fc2", mlp_bias=True, position_table=True),
    Architecture("Llama", ("llama",), "model.layers", _GATED, "mlp.down_proj"),
    Architecture("Mistral", ("mistral",), "model.layers", _GATED, "mlp.down_proj"),
    Architecture("Qwen2", ("qwen2",), "model.layers", _GATED, "mlp.down_proj"),
    Architecture("Qwen3", ("qwen3",), "model.layers", _GATED, "mlp.down_proj"),
    Architecture("Gemma 2", ("gemma2",), "model.layers", _GATED, "mlp.down_proj", mlp_norm=_GEMMA_NORM),
    Architecture("Gemma 3", ("gemma3_text",), "model.layers", _GATED, "mlp.down_proj", mlp_norm=_GEMMA_NORM),
    Architecture("Phi", ("phi",), "model.layers", ("mlp.fc1",), "mlp.fc2", mlp_bias=True),
    Architecture("Phi-3", ("phi3",), "model.layers", ("mlp.gate_up_proj",), "mlp.down_proj"),
)


def architecture_of(config: PretrainedConfig) -> Architecture:
    """Return the row for a model, by its `config.model_type`.

    Parameters
    ----------
    config : PretrainedConfig
        The transformers configuration of the model.

    Returns
    -------
    Architecture

    Raises
    ------
    ModelError
        If no row covers this model type.
    """
    for row in ARCHITECTURES:
        if config.model_type in row.model_types:
            return row
    architecture = (config.architectures or [config.model_type])[0]
    known = ", ".join(row.name for row in ARCHITECTURES)
    raise ModelError(
        f"No architecture row for {architecture!r} (model_type {config.model_type!r}); known: {known}; "
        "docs/adding-a-model.md says how to add one."
    )
