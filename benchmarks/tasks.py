"""Seconds that the eight tasks take, through the engine against one `generate` call a query, in the same run.

    python -m benchmarks.tasks [--model smollm2-135m] [--limit 50] [--protocol standard]

The baseline writes the same answers, prompt by prompt, with transformers' own `generate` and its own stopping; it does
not score the options, which the engine does besides. `--options` lets it score them, too, a whole forward pass each.
"""

import argparse
import time

import torch

import workbench as wb
from workbench.encoding import encode
from workbench.evaluation.engine import Answer, Query, answer_queries, rendered
from workbench.evaluation.tasks import TASKS


def generated(lm: wb.LanguageModel, query: Query) -> str:
    """The continuation, by one call of `generate`."""
    if not query.max_new_tokens:
        return ""
    text, special = rendered(lm, query)
    inputs = lm.tokenizer(text, add_special_tokens=special, return_tensors="pt")
    stops = {"stop_strings": list(query.stop), "tokenizer": lm.tokenizer} if query.stop else {}
    whole = lm.model.generate(
        **inputs, max_new_tokens=query.max_new_tokens, do_sample=False, pad_token_id=lm.tokenizer.pad_token_id, **stops
    )
    written = lm.tokenizer.decode(whole[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return written[: min((at for stop in query.stop if (at := written.find(stop)) >= 0), default=len(written))]


@torch.no_grad()
def log_likelihood(lm: wb.LanguageModel, query: Query, option: str) -> float:
    """Of one option, by one whole forward pass."""
    text, special = rendered(lm, query)
    row = encode(lm.tokenizer, text, option, add_special_tokens=special)
    log_probs = lm.model(torch.tensor([row.ids])).logits[0, :-1].log_softmax(dim=-1)
    return float(log_probs[row.n_prompt - 1 :].gather(1, torch.tensor(row.target_ids)[:, None]).sum())


def plain(lm: wb.LanguageModel, queries: list[Query], *, options: bool) -> list[Answer]:
    return [
        Answer(generated(lm, q), tuple(log_likelihood(lm, q, o) for o in q.options) if options else ()) for q in queries
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument("--protocol", default="standard", choices=("standard", "paper"))
    parser.add_argument("--options", action="store_true")
    args = parser.parse_args()

    lm = wb.load(args.model)
    where = f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"{lm.name}, protocol {args.protocol}, {args.limit} bundled examples a task, {where}")
    totals = [0.0, 0.0]
    for task in TASKS.values():
        data = wb.load_task(task.name, "bundled").take(args.limit)
        queries = [query for example in data.examples for query in task.ask(example, args.protocol)]
        start = time.perf_counter()
        ours = answer_queries(lm, queries)
        between = time.perf_counter()
        theirs = plain(lm, queries, options=args.options)
        seconds = between - start, time.perf_counter() - between
        totals = [a + b for a, b in zip(totals, seconds, strict=True)]
        same = sum(a.text == b.text for a, b in zip(ours, theirs, strict=True))
        times = f"workbench {seconds[0]:.1f} s, plain {seconds[1]:.1f} s, ratio {seconds[1] / seconds[0]:.1f}"
        print(f"{task.name}: {times}; {same} of {len(queries)} answers the same", flush=True)
    print(f"all: workbench {totals[0]:.1f} s, plain {totals[1]:.1f} s, ratio {totals[1] / totals[0]:.2f}")


if __name__ == "__main__":
    main()
