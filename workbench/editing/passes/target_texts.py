"""Prompts with their targets: run from some block up, read where the targets' tokens are predicted."""

from collections.abc import Callable, Sequence

from torch import Tensor

from workbench.editing.passes.upper_blocks import UpperBlocks
from workbench.encoding import Batch, Encoded
from workbench.forward import TargetTokens, pad_rows
from workbench.lm import LanguageModel


def pad_texts(lm: LanguageModel, texts: Sequence[Encoded]) -> tuple[Batch, Tensor]:
    """Pad texts on the right, without their last token, which is predicted but never read.

    Parameters
    ----------
    lm : LanguageModel
        The model on whose device the tensors go.
    texts : sequence of Encoded
        B prompts with their targets.

    Returns
    -------
    batch, read : Batch, Tensor
        Both (B, T); `read` is true at the tokens after which the targets' tokens are predicted.
    """
    return pad_rows(lm, [text.ids[:-1] for text in texts], [text.before_targets for text in texts])


def compute_upper_blocks(lm: LanguageModel, texts: Sequence[Encoded], layer: int) -> UpperBlocks:
    """Run texts up to the input of block `layer`; they are read where their targets' tokens are predicted.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights.
    texts : sequence of Encoded
        B prompts with their targets.
    layer : int
        The first block that is run repeatedly.

    Returns
    -------
    UpperBlocks
        (B, T), padded on the right.
    """
    return UpperBlocks.compute(lm, *pad_texts(lm, texts), layer)


def compute_target_loss(lm: LanguageModel, texts: Sequence[Encoded], layer: int) -> Callable[[], Tensor]:
    """Return a function that computes the loss of a minibatch; the blocks below `layer` are run only once.

    Parameters
    ----------
    lm : LanguageModel
        The model. Its blocks below `layer` must not change while the function is used.
    texts : sequence of Encoded
        Prompts with their targets.
    layer : int
        The first block that is run at each call.

    Returns
    -------
    callable
        Returns the mean over the texts of the NLL per token of the target, a scalar, differentiable.
    """
    upper = compute_upper_blocks(lm, texts, layer)
    targets = TargetTokens.of([text.target_ids for text in texts], lm.device)
    return lambda: targets.mean_nll(upper.logits()).mean()
