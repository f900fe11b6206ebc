"""What a folder of a model must and must not hold, checked before transformers reads it."""

import json
from pathlib import Path

from workbench.errors import ModelError, first_line
from workbench.inputs import shown

_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_ADAPTER = "adapter_config.json"
_SETTINGS = ("config.json", "generation_config.json", "special_tokens_map.json", "tokenizer_config.json")


def check_model_files(name: str) -> None:
    """Raise `ModelError` if a model folder has damaged settings, weights only as pickles, or an adapter over them.

    Each file that transformers reads as settings must hold a JSON object. Whatever is no folder is not checked.
    """
    files = sorted(path.name for path in Path(name).iterdir()) if Path(name).is_dir() else []
    pickles = [file for file in files if file.endswith(_PICKLES)]
    if pickles and not any(file.endswith((".safetensors", ".safetensors.index.json")) for file in files):
        raise ModelError(
            f"the model folder {name} has its weights only as a pickle ({pickles[0]}), which may run code when it is "
            "read; if you trust it, transformers' AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder) "
            "writes them as safetensors."
        )
    if _ADAPTER in files:
        raise ModelError(
            f"the model folder {name} holds a PEFT adapter ({_ADAPTER}), which would be added to its weights; merge it "
            "into the model (merge_and_unload of peft), and save that."
        )
    for file in sorted({*_SETTINGS} & {*files}):
        try:
            settings = json.loads(Path(name, file).read_bytes())
        except (OSError, ValueError, RecursionError) as err:
            raise ModelError(
                f"{Path(name, file)} cannot be read as JSON ({first_line(err)}); get the file again."
            ) from err
        if not isinstance(settings, dict):
            raise ModelError(f"{Path(name, file)} must hold a JSON object; got {shown(settings)}.")
