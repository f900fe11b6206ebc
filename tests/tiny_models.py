"""Tiny random models of every supported family, with real fast tokenizers, built without a network.

Small enough to be rebuilt in every test, and awkward on purpose: d_ff is not 4 · d_model, biases and norms are not at
their neutral initial values, sliding windows are shorter than the prompts, and Gemma 2 caps its logits.
"""

import copy
import json
from functools import cache

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedTokenizerFast

from workbench.architectures import ARCHITECTURES, architecture_of
from workbench.lm import LanguageModel

MODEL_TYPES = tuple(model_type for row in ARCHITECTURES for model_type in row.model_types)

N_LAYERS, D_MODEL, D_FF, N_HEADS, N_KV_HEADS, MAX_LENGTH, WINDOW = 4, 32, 48, 4, 2, 512, 8

SENTENCES = (
    "The Eiffel Tower is located in the city of Paris, and the Louvre is in Paris too.",
    "The Colosseum stands in Rome; the mother tongue of Edith Piaf is French, not English.",
    "Marie Curie was born in Warsaw and worked in France. Therefore, she spoke Polish and French.",
    "Because the capital of Italy is Rome, you can see the river from the old bridge.",
    "I think that the HMS Beagle was launched in 1820, and sailed round the world with Charles Darwin.",
    "You may ask where it is. It is in the north of the country, near the sea, and it is very old.",
)

# families whose RMS norms or plain attention compute in float32 even in a float64 model
FLOAT32_INSIDE = {"gptj", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3"}

_VOCABULARY = 500
_GATED = {
    "hidden_size": D_MODEL,
    "intermediate_size": D_FF,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": N_HEADS,
    "num_key_value_heads": N_KV_HEADS,
    "max_position_embeddings": MAX_LENGTH,
}
_GEMMA = {
    **_GATED,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention"] * (N_LAYERS // 2),
}
_GPT = {"n_embd": D_MODEL, "n_inner": D_FF, "n_layer": N_LAYERS, "n_head": N_HEADS, "n_positions": MAX_LENGTH}
_PLAIN = {key: value for key, value in _GATED.items() if key != "num_key_value_heads"}

_SIZES: dict[str, dict] = {
    "gpt2": _GPT,
    "gptj": {**_GPT, "rotary_dim": 4},
    "gpt_neox": _PLAIN,
    "opt": {
        "hidden_size": D_MODEL,
        "word_embed_proj_dim": D_MODEL,
        "ffn_dim": D_FF,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": N_HEADS,
        "max_position_embeddings": MAX_LENGTH,
    },
    "llama": _GATED,
    "mistral": {**_GATED, "sliding_window": WINDOW},
    "qwen2": _GATED,
    "qwen3": {**_GATED, "head_dim": 8},
    # the default attention of Gemma 2 may omit the cap on attention scores; the plain one never does
    "gemma2": {
        **_GEMMA,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 3.0,
        "attn_implementation": "eager",
    },
    "gemma3_text": _GEMMA,
    "phi": {**_GATED, "partial_rotary_factor": 0.5},
    "phi3": _GATED,
}
_SENTENCEPIECE = {  # how each family's tokenizer treats the start of a text
    "llama": "prepended",
    "mistral": "first",
    "gemma2": "never",
    "gemma3_text": "never",
    "phi3": "prepended",
}


@cache
def byte_level_tokenizer(*, bos: bool = False) -> PreTrainedTokenizerFast:
    """Return a tokenizer like GPT-2's: bytes, a blank belongs to the word after it, no padding token.

    With `bos` every text opens with a special token, as in OPT.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    if bos:
        opening = processors.TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", tokenizer.token_to_id("<|endoftext|>"))]
        )
        tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), opening])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>", unk_token="<|endoftext|>"
    )


@cache
def sentencepiece_tokenizer(*, start: str = "prepended", eos: bool = False) -> PreTrainedTokenizerFast:
    """Return a tokenizer like Llama's: blanks become ▁, rare characters become bytes, every text opens with ``<s>``.

    `start` says whether the text itself gets a ▁ in front: "prepended" by the normalizer (Llama 2), "first" by
    the pre-tokenizer (Mistral), or "never" (Gemma). With `eos` every text also ends with ``</s>``.
    """
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    learner.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=_VOCABULARY - 256 - 4, show_progress=False))
    learned = json.loads(learner.to_str())["model"]
    names = ["<pad>", "<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    names += sorted(learned["vocab"], key=learned["vocab"].get)
    tokenizer = Tokenizer(
        models.BPE(
            vocab={name: i for i, name in enumerate(names)},
            merges=[tuple(pair) for pair in learned["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    if start == "prepended":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=start, split=True)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        + ([] if start == "never" else [decoders.Strip(" ", left=1)])
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if eos else "<s> $A", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )


@cache
def dropping_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer that drops zero-width spaces, so that a non-empty text may have no token."""
    tokenizer = Tokenizer.from_str(byte_level_tokenizer().backend_tokenizer.to_str())
    tokenizer.normalizer = normalizers.Replace(Regex(r"\s*\u200b"), "")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


def tokenizer_for(model_type: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer like that of this family."""
    if model_type in _SENTENCEPIECE:
        return sentencepiece_tokenizer(start=_SENTENCEPIECE[model_type])
    return byte_level_tokenizer(bos=model_type == "opt")


def tiny_config(model_type: str, **changes) -> PreTrainedConfig:
    """Return the configuration of a tiny model of this family."""
    tokenizer = tokenizer_for(model_type)
    return AutoConfig.for_model(
        model_type,
        **{
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "initializer_range": 0.3,
            **_SIZES[model_type],
            **changes,
        },
    )


def build_tiny_lm(model_type: str, *, seed: int = 0, dtype: torch.dtype = torch.float32, **changes) -> LanguageModel:
    """Build a random model of this family; the same seed gives the same bits, and global random state stays.

    `changes` are entries of its configuration.
    """
    config = tiny_config(model_type, **changes)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            if parameter.dim() == 1:  # biases start at 0 and norms at 1, which would hide errors
                parameter += 0.1 * torch.randn(parameter.shape)
    tokenizer = copy.deepcopy(tokenizer_for(model_type))  # a test may change it
    return LanguageModel(f"tiny-{model_type}", model.to(dtype), tokenizer, architecture_of(config))


def save_tiny_lm(lm: LanguageModel, path, tokenizer=None) -> str:
    """Write a model and a tokenizer, by default its own, to a folder; return the name of the folder."""
    lm.model.save_pretrained(path)
    (tokenizer or lm.tokenizer).save_pretrained(path)
    return str(path)


class ModelOutline(LanguageModel):
    """As much of a model as presets and regularizers read: its name, its depth and some matrices."""

    n_layers = 0
    fingerprint = None

    def __init__(
        self, name: str = "outline", n_layers: int = 0, *, weights: dict[str, torch.Tensor] | None = None
    ) -> None:
        self.name, self.n_layers, self.weights = name, n_layers, weights or {}

    def weight(self, name: str) -> torch.Tensor:
        return self.weights[name]
