"""Time of the eight tasks through the engine, against one `generate` call per query in the same run.

    python -m benchmarks.tasks [--model smollm2-135m] [--limit 50] [--protocol standard]

The baseline generates the same answers, prompt by prompt, with the `generate` and the stopping rules of transformers.
Unlike the engine it does not score the options, unless `--options` is given; each then takes a whole forward pass.
"""

import argparse

import torch

import workbench as wb
from benchmarks.timing import describe_setup, timed
from workbench.encoding import encode
from workbench.evaluation.engine import Answer, Query, answer_queries, render_prompt
from workbench.evaluation.tasks import TASKS


def generate_answer(lm: wb.LanguageModel, query: Query) -> str:
    """Return the continuation, by one call of `generate`."""
    if not query.max_new_tokens:
        return ""
    text, special = render_prompt(lm, query)
    inputs = lm.tokenizer(text, add_special_tokens=special, return_tensors="pt")
    stops = {"stop_strings": list(query.stop), "tokenizer": lm.tokenizer} if query.stop else {}
    whole = lm.model.generate(
        **inputs, max_new_tokens=query.max_new_tokens, do_sample=False, pad_token_id=lm.tokenizer.pad_token_id, **stops
    )
    written = lm.tokenizer.decode(whole[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return written[: min((at for stop in query.stop if (at := written.find(stop)) >= 0), default=len(written))]


@torch.no_grad()
def log_likelihood(lm: wb.LanguageModel, query: Query, option: str) -> float:
    """Return the log-likelihood of one option, from one whole forward pass."""
    text, special = render_prompt(lm, query)
    row = encode(lm.tokenizer, text, option, add_special_tokens=special)
    log_probs = lm.model(torch.tensor([row.ids])).logits[0, :-1].log_softmax(dim=-1)
    return float(log_probs[row.n_prompt - 1 :].gather(1, torch.tensor(row.target_ids)[:, None]).sum())


def answer_plainly(lm: wb.LanguageModel, queries: list[Query], *, options: bool) -> list[Answer]:
    """Answer queries one by one; with `options`, also score theirs."""
    return [
        Answer(generate_answer(lm, q), tuple(log_likelihood(lm, q, o) for o in q.options) if options else ())
        for q in queries
    ]


def main() -> None:
    """Time all tasks and print the seconds and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument("--protocol", default="standard", choices=("standard", "paper"))
    parser.add_argument("--options", action="store_true")
    args = parser.parse_args()

    lm = wb.load(args.model)
    print(f"{lm.name}, protocol {args.protocol}, {args.limit} bundled examples per task, {describe_setup()}")
    totals = [0.0, 0.0]
    for task in TASKS.values():
        data = wb.load_task(task.name, "bundled").take(args.limit)
        queries = [query for example in data.examples for query in task.ask(example, args.protocol)]
        taken, ours = timed(answer_queries, lm, queries)
        taken_plainly, theirs = timed(answer_plainly, lm, queries, options=args.options)
        seconds = taken, taken_plainly
        totals = [a + b for a, b in zip(totals, seconds, strict=True)]
        same = sum(a.text == b.text for a, b in zip(ours, theirs, strict=True))
        times = f"workbench {seconds[0]:.1f} s, plain {seconds[1]:.1f} s, ratio {seconds[1] / seconds[0]:.1f}"
        print(f"{task.name}: {times}; {same} of {len(queries)} answers the same", flush=True)
    print(f"all: workbench {totals[0]:.1f} s, plain {totals[1]:.1f} s, ratio {totals[1] / totals[0]:.2f}")


if __name__ == "__main__":
    main()
