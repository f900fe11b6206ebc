"""Seconds and peak memory of one edit by each method, on models of true shapes with random weights.

    python -m benchmarks.sizes [--models gpt2] [--methods rome,memit,kn,mend,ft,lora] [--dtype bfloat16] [--steps 3]

Each edit runs in a process of its own, whose peak is reset before it, on a GPU where there is one. Weights are drawn at
random, which changes neither time nor memory; the tokenizer has 500 tokens, so texts are longer than the model's own
would make them. MEMIT writes two facts and estimates C first, from 2 · d_ff tokens; MEND's network is untrained. On
the CPU, memory is read from /proc, as Linux has it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

import workbench as wb
from benchmarks.timing import describe_setup, status_bytes, timed
from tests.editing.second_moment.moments import write_text
from tests.tiny_models import byte_level_tokenizer
from workbench.architectures import architecture_of
from workbench.editing.mend.factors import weights_to_edit
from workbench.editing.mend.network import MendNetwork, save_network
from workbench.quantized import is_quantized, quantize_blocks
from workbench.registry import make_editor, method_row

SHAPES = {
    "tiny": ("llama", {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 8, "num_attention_heads": 4}),
    "gpt2": ("gpt2", {}),
    "gpt2-xl": ("gpt2", {"n_embd": 1600, "n_layer": 48, "n_head": 25}),
    "gpt-j-6b": ("gptj", {}),
    "llama-7b": ("llama", {}),
}
METHODS = ("rome", "memit", "kn", "mend", "ft", "lora")
# one bare prompt, ten contexts of some five tokens, ten of some ten, as sampled templates are
CONTEXTS = ("{}", *["The river. {}"] * 10, *["I think that the old bridge. {}"] * 10)
REQUESTS = [
    wb.EditRequest(
        subject="Edith Piaf", prompt="The mother tongue of {} is", target_new="English", target_true="French"
    ),
    wb.EditRequest(subject="The Louvre", prompt="{} is in the city of", target_new="Rome", target_true="Paris"),
]
GIB = 2**30


def main() -> None:
    """Measure each edit in a process of its own and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="gpt2", help=f"comma-separated; known: {', '.join(SHAPES)}")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--quantize")
    parser.add_argument("--steps", type=int, default=3, help="optimization steps, on which memory does not depend")
    parser.add_argument("--here", action="store_true", help="measure one edit in this process and print JSON")
    args = parser.parse_args()
    if args.here:
        measured = measure_edit(args.models, args.methods, args.dtype, quantize=args.quantize, n_steps=args.steps)
        print(json.dumps(measured))
        return
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{device}, {args.dtype}, quantize {args.quantize}, {args.steps} steps, {describe_setup()}; memory in GiB\n")
    print(f"{'model':>10} {'method':>7} {'weights':>8} {'seconds':>8} {'peak':>6} {'above':>6}")
    for model in args.models.split(","):
        for method in args.methods.split(","):
            row = _measure_apart(model, method, sys.argv[1:])
            numbers = f"{row['weights']:8.2f} {row['seconds']:8.1f} {row['peak']:6.2f} {row['above']:6.2f}"
            print(f"{model:>10} {method:>7} {numbers}", flush=True)


def _measure_apart(model: str, method: str, options: list[str]) -> dict[str, float]:
    chosen = ["--models", model, "--methods", method, "--here"]  # the last of an option given twice counts
    command = [sys.executable, "-m", "benchmarks.sizes", *options, *chosen]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found


def measure_edit(
    model: str, method: str, dtype: str, *, quantize: str | None = None, n_steps: int = 3
) -> dict[str, float]:
    """Return the size of the weights, the seconds of one edit, its peak memory, and how much of that it added (GiB)."""
    lm = build_model(model, dtype, quantize)
    with tempfile.TemporaryDirectory() as folder:
        editor = make_editor(method, lm, settings_of_edit(lm, method, Path(folder), n_steps))
        requests = REQUESTS if method == "memit" else REQUESTS[:1]
        before = start_peak()
        seconds, _ = timed(editor.compute_update, lm, requests)
        peak = read_peak()
    weights = sum(_bytes_of(parameter) for parameter in lm.model.parameters()) / GIB
    return {"weights": weights, "seconds": seconds, "peak": peak, "above": peak - before}


def config_of(model: str) -> PreTrainedConfig:
    """Return the configuration of a model of this shape."""
    model_type, shape = SHAPES[model]
    return AutoConfig.for_model(model_type, **shape)


def build_model(model: str, dtype: str, quantize: str | None) -> wb.LanguageModel:
    """Return a model of a true shape with random weights, on the GPU where there is one."""
    config = config_of(model)
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    arch = architecture_of(config)
    if quantize is not None:
        quantize_blocks(network.get_submodule(arch.blocks), quantize, model)
    return wb.LanguageModel(model, network, byte_level_tokenizer(), arch)


def settings_of_edit(lm: wb.LanguageModel, method: str, folder: Path, n_steps: int) -> dict[str, object]:
    """Return the hyperparameters that keep an edit short; the others are those of `for_model`."""
    given: dict[str, object] = {}
    if steps := method_row(method).options.get("steps"):
        given[steps] = n_steps
    if method in ("rome", "memit", "kn"):
        given["contexts"] = CONTEXTS if method == "rome" else CONTEXTS[::4]
    if method == "memit":
        d_ff, _ = lm.linear_shape(lm.arch.mlp_out_weight(0))
        n_tokens = max(512, 2 * d_ff)
        source = write_text(folder / "text.txt", n_tokens // 10)
        given["second_moment"] = wb.SecondMoment(source=str(source), n_tokens=n_tokens)
    if method == "mend":
        network = MendNetwork.untrained(
            lm, weights_to_edit(lm), rank=min(1920, lm.model.config.hidden_size), edit_lr=1e-4
        )
        given["network"] = str(save_network(network, folder / "mend.safetensors", lm))
    return given


def _bytes_of(weight: torch.Tensor) -> int:
    names = weight.__tensor_flatten__()[0] if is_quantized(weight) else ()
    parts = [getattr(weight, name) for name in names] or [weight]
    return sum(part.numel() * part.element_size() for part in parts)


def start_peak() -> float:
    """Forget the peak so far; return the memory that is used now, in GiB."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / GIB
    Path("/proc/self/clear_refs").write_text("5")
    return status_bytes("VmRSS") / GIB


def read_peak() -> float:
    return (torch.cuda.max_memory_allocated() if torch.cuda.is_available() else status_bytes("VmHWM")) / GIB


if __name__ == "__main__":
    main()
