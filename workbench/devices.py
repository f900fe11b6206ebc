"""Models whose weights are spread over several devices by accelerate, as transformers' `device_map` does it."""

from torch import nn

from workbench.errors import ModelError


def keep_masks_on_the_host(model: nn.Module) -> None:
    """Exempt `logits_to_keep` from what accelerate moves to a model's first device.

    The mask selects rows of the last hidden states, which may be on another device. On the CPU, where the workbench
    keeps it, it selects rows on any device, and no device has to be waited for.
    """
    hook = getattr(model, "_hf_hook", None)
    if hook is not None and hasattr(hook, "skip_keys"):
        given = hook.skip_keys or ()
        hook.skip_keys = [*((given,) if isinstance(given, str) else given), "logits_to_keep"]


def require_weights_in_memory(model: nn.Module, name: str) -> None:
    """Raise `ModelError` if weights of the model `name` are offloaded: brought to a device only for their own layer."""
    offloaded = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if offloaded:
        raise ModelError(
            f"the devices cannot hold {name}: device_map leaves {len(offloaded)} of its weights off them, among them "
            f"{offloaded[0]}, where they cannot be edited; a half-precision dtype or quantize needs less memory."
        )
