"""The explorer's tables as HTML. Whatever comes from a model, a file or a user is escaped here."""

from collections.abc import Iterable, Sequence
from html import escape

import pandas as pd

from workbench.editing.editor import describe_layers
from workbench.evaluation.predictions import Answered, Reading, Token
from workbench.explorer.edits import Continuation, Edit
from workbench.printable import printable
from workbench.request import EditRequest

ROLES = {"reliability": "prompt", "generalization": "rephrased", "locality": "elsewhere"}
_HELD = {"reliability": "the new answer", "generalization": "the new answer", "locality": "unchanged"}
_LOST = {"reliability": "another answer", "generalization": "another answer", "locality": "changed"}


def shown(text: str) -> str:
    """Text with control characters spelled out, escaped."""
    return escape(printable(text))


def chance(p: float) -> str:
    """A probability in three digits; small ones as a power of ten."""
    if p >= 0.0995:
        return f"{p:.2f}"
    if p >= 0.001:
        return f"{p:.3f}"
    return "0" if p == 0 else f"{p:.0e}".replace("e-0", "e-")


def percent(share: float) -> str:
    """A share as a percentage with one digit after the point."""
    return f"{100 * share:.1f} %"


def fact_line(request: EditRequest) -> str:
    """A fact in one line."""
    true = f"{shown(request.target_true)} → " if request.target_true else "→ "
    return f"{shown(request.filled_prompt)} … {true}<b>{shown(request.target_new)}</b>"


def verdict(answers: Sequence[Answered], n_edits: int) -> str:
    """What has become of a fact, in a sentence or two."""
    first = answers[0]
    now = shown(first.after.next_tokens[0].text.strip() or repr(first.after.next_tokens[0].text))
    was = shown(first.before.next_tokens[0].text.strip() or repr(first.before.next_tokens[0].text))
    if n_edits == 0:
        return f"The unedited model goes on with <b>{now}</b>."
    changed = (
        f"goes on with <b>{now}</b>, unedited with <b>{was}</b>" if now != was else f"still goes on with <b>{now}</b>"
    )
    parts = [f"The model {changed}."]
    for metric, what in (
        ("generalization", "rephrasings give the new answer"),
        ("locality", "other prompts unchanged"),
    ):
        scores = [a.score for a in answers if a.probe.metric == metric]
        if scores:
            parts.append(f"{sum(score == 1 for score in scores)} of {len(scores)} {what}.")
    return " ".join(parts)


def answers_table(answers: Sequence[Answered], n_edits: int) -> str:
    """Prompts with their most probable next tokens and the chances of the answers, before and after the edits."""
    heads = ["Prompt", "Unedited", *(["Edited"] if n_edits else [])]
    rows = [_answer_row(a, n_edits) for a in answers]
    caption = "Most probable next tokens" + (", and what each answer's probability has become" if n_edits else "")
    return _table(caption, heads, rows, "wb-answers")


def _answer_row(answered: Answered, n_edits: int) -> str:
    probe, before, after = answered.probe, answered.before, answered.after
    role = f'<span class="wb-role wb-role-{probe.metric}">{ROLES[probe.metric]}</span>'
    lines = "".join(
        f'<div class="wb-chance"><span class="wb-{kind}">{shown(answer.strip())}</span> '
        + chance(before.chances[answer])
        + (f" → <b>{chance(after.chances[answer])}</b>" if n_edits else "")
        + "</div>"
        for answer, kind in _kinds(answered).items()
    )
    held = ""
    if n_edits:
        whole = answered.score == 1
        outcome = (_HELD if whole else _LOST)[probe.metric]
        held = f'<div class="wb-held wb-{"yes" if whole else "no"}">{"✓" if whole else "✗"} {outcome}</div>'
    cells = [_tokens(before, answered), *([_tokens(after, answered)] if n_edits else [])]
    text = f'<span class="wb-text">{shown(probe.prompt)}</span>'
    head = f'<th scope="row">{role} {text}<div class="wb-odds">{lines}{held}</div></th>'
    return head + "".join(f"<td>{cell}</td>" for cell in cells)


def _kinds(answered: Answered) -> dict[str, str]:
    """Each answer that is looked for: whether it is the new or the old one."""
    probe = answered.probe
    own, rival = ("old", "new") if probe.metric == "locality" else ("new", "old")
    return {probe.target: own} | ({} if probe.rival in (None, probe.target) else {probe.rival: rival})


def _tokens(reading: Reading, answered: Answered) -> str:
    kinds = {reading.first_ids[answer]: kind for answer, kind in _kinds(answered).items()}
    return "".join(_token(token, kinds.get(token.id, "other")) for token in reading.next_tokens)


def _token(token: Token, kind: str) -> str:
    text = shown(token.text.strip()) or escape(repr(token.text))
    return (
        f'<div class="wb-token wb-{kind}"><span class="wb-bar" style="width:{100 * token.chance:.0f}%"></span>'
        f"<span>{text}</span> <span>{chance(token.chance)}</span></div>"
    )


def continuations_table(rows: Iterable[Continuation], edited: bool) -> str:
    """Prompts with their greedy continuations, before and after."""
    heads = ["Prompt", "Unedited", *(["Edited"] if edited else [])]
    body = [
        f'<th scope="row"><span class="wb-text">{shown(row.prompt)}</span></th><td>{_text(row.before)}</td>'
        + (f"<td>{_text(row.after)}</td>" if edited else "")
        for row in rows
    ]
    return _table("How the model goes on, greedily", heads, body, "wb-continuations")


def _text(text: str) -> str:
    """Text of several lines in one."""
    return shown(text.replace("\n", " ↵ "))


def edit_line(number: int, edit: Edit, now: Answered) -> str:
    """An edit of the history in two lines: the fact, and what was done."""
    settings = ", ".join([edit.editor.label, *describe_layers(edit.editor), edit.regularizer.label])
    odds = f"P({shown(edit.request.target_new.strip())}) {chance(now.before.chances[now.probe.target])} → "
    odds += f"<b>{chance(now.after.chances[now.probe.target])}</b>"
    done = f"{shown(settings)} · {edit.seconds:.1f} s{_diagnostics(edit)} · {odds} now"
    return (
        f'<div class="wb-edit"><span class="wb-number">{number}</span><div>{fact_line(edit.request)}'
        f'<div class="wb-small">{done}</div></div></div>'
    )


def _diagnostics(edit: Edit) -> str:
    if not edit.computed.records:
        return ""
    record = edit.computed.records[0]
    losses = record.losses[0] if record.losses else ()
    text = f" · loss {losses[0]:.2f} → {losses[-1]:.2f} in {len(losses)} steps" if len(losses) > 1 else ""
    return text + (
        f" · denominator {record.diagnostics['denominator']:.3g}" if "denominator" in record.diagnostics else ""
    )


def growth_table(growth: pd.DataFrame, thresholds: Sequence[float]) -> str:
    """How far the weights are from the unedited ones after each edit."""
    heads = ["Edits", "Matrices", "Manhattan distance", "‖ΔW‖/‖W‖", "Changed"]
    heads += [f"δ > {value:.3g}" for value in thresholds]
    rows = [
        f'<th scope="row">{row["n_edits"]:.0f}</th>'
        + "".join(
            f"<td>{cell}</td>"
            for cell in (
                f"{row['matrices']:.0f}",
                f"{row['manhattan_distance']:,.1f}",
                f"{row['relative_norm']:.4f}",
                percent(row["share_changed"]),
                *(percent(row[f"share_above_{i}"]) for i in range(1, len(thresholds) + 1)),
            )
        )
        for row in growth.to_dict("records")
    ]
    caption = "The weights against the unedited ones, over all matrices edited so far"
    if thresholds:
        caption += "; the δ are the 80 % and 90 % quantiles of the first edit, before it was regularized"
    return _table(caption, heads, rows, "wb-numbers")


def code_block(code: str) -> str:
    """The code that makes the edits again, as it is, folded."""
    lines = "\n".join(shown(line) for line in code.splitlines())
    return f"<details><summary>Python that makes these edits again</summary><pre><code>{lines}</code></pre></details>"


def _table(caption: str, heads: Sequence[str], rows: Iterable[str], kind: str) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="wb-scroll"><table class="wb-table {kind}"><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
