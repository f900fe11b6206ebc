"""How EasyEdit's KN reads answers, which differs from running text, and the named settings of KN.

Restated from zjunlp/EasyEdit, easyeditor/models/kn/knowledge_neurons (get_scores_for_layer, _generate, modify_weights);
the copy in JasonForJoy/Model-Editing-Hurt, which Gu et al. 2024 ran, computes the same.
"""

from typing import Any

from workbench.editing.passes.attribution import Prediction
from workbench.errors import RequestError
from workbench.forward import compute_logits
from workbench.lm import LanguageModel
from workbench.request import PLACEHOLDER

EASYEDIT: dict[str, Any] = {
    "contexts": (PLACEHOLDER,),
    "attributed": "old",
    "scale": "embedding",
    "embeddings": "input",
    "signed": False,
    "lambda_old": 1.0,
    "lambda_new": 1.0,
    "neurons": "gate",
    "points": "ends",
    "answers": "easyedit",
    "old_answer": "greedy",
}
# Each is whole: used as the hyperparameters of an `ExperimentSpec`, it leaves nothing of the model's preset but the
# fields that it does not name, which no preset sets. Sources: Dai et al. 2022, section 5.1 and the published code
# (1_analyze_mlm.py, 6_edit_knowledge_sampled.py); zjunlp/EasyEdit hparams/KN (gpt2-xl.yaml, gpt-j-6B.yaml, and
# llama-7b.yaml, which is for llama-2-7b and the only one for Llama).
SETTINGS: dict[str, dict[str, Any]] = {
    "dai": {
        **{"steps": 20, "adaptive_threshold": 0.2, "p": 0.7, "lambda_old": 1.0, "lambda_new": 8.0, "contexts": None},
        **{"attributed": "old", "scale": "value", "embeddings": "output", "signed": False, "neurons": "activation"},
        **{"points": "left", "answers": "text", "old_answer": "predicted"},
    },
    "easyedit-gpt2-xl": {**EASYEDIT, "steps": 20, "adaptive_threshold": 0.2, "p": 0.4},
    "easyedit-gpt-j-6b": {**EASYEDIT, "steps": 20, "adaptive_threshold": 0.1, "p": 0.4},
    "easyedit-llama": {**EASYEDIT, "steps": 1, "adaptive_threshold": 0.2, "p": 0.4},
}
_PROMPT_STAYS = ("GPT-2", "GPT-J")  # their later tokens are attributed without the earlier ones


def encode_alone(lm: LanguageModel, answer: str) -> tuple[int, ...]:
    """Return the token ids of an answer without prompt and leading blank, with the special tokens of a whole text.

    Parameters
    ----------
    lm : LanguageModel
        The model; only its tokenizer is used.
    answer : str
        The answer.

    Returns
    -------
    tuple of int
        For Llama ``<s>`` is the first.

    Raises
    ------
    RequestError
        If there are no tokens.
    """
    if not (ids := tuple(lm.tokenizer(answer.strip())["input_ids"])):
        raise RequestError(f"target {answer!r} tokenizes to nothing; give a target with text in it.")
    return ids


def continue_greedily(lm: LanguageModel, prompt: str, n_tokens: int) -> list[Prediction]:
    """Return the tokens of a greedy continuation, each with the text that it follows.

    Each token, special or not, is decoded alone and appended to the text, which is then tokenized again; so Llama's
    tokens lose the blank before them.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights.
    prompt : str
        The text to continue.
    n_tokens : int
        Number of tokens.

    Returns
    -------
    list of (tuple of int, int)
    """
    steps: list[Prediction] = []
    for _ in range(n_tokens):
        ids = tuple(lm.tokenizer(prompt)["input_ids"])
        token = int(compute_logits(lm, [ids], [(len(ids) - 1,)])[0].argmax())
        steps.append((ids, token))
        prompt += str(lm.tokenizer.decode([token]))
    return steps


def place_answer(lm: LanguageModel, prompt: str, answer: tuple[int, ...]) -> list[Prediction]:
    """Return the tokens of an answer, each with the text at whose end EasyEdit attributes it.

    Before the later tokens stand not the true ones but those that the model itself continues with; in GPT-2 and GPT-J
    every token is attributed at the end of the prompt.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights.
    prompt : str
        The prompt.
    answer : tuple of int
        Token ids of the answer.

    Returns
    -------
    list of (tuple of int, int)
    """
    if lm.arch.name in _PROMPT_STAYS:
        ids = tuple(lm.tokenizer(prompt)["input_ids"])
        return [(ids, token) for token in answer]
    before = continue_greedily(lm, prompt, len(answer))
    return [(ids, token) for (ids, _), token in zip(before, answer, strict=True)]
