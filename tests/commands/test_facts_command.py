"""`workbench facts`."""

import json

import pytest

import workbench as wb


@pytest.mark.parametrize("name", ["bundled", "bundled-hard"])
def test_facts_check_counts_the_bundled_facts(cli, name):
    n = len(wb.load_facts(name))
    assert cli("facts", "check", name) == (0, f"{name}: format native, {n} of {n} records usable.\n", "")


def test_facts_check_gives_each_reason_and_exits_with_1(cli, folder):
    good = {"subject": "Rome", "prompt": "{} is in", "target_new": "Spain"}
    bad = {"subject": "Rome", "prompt": "It is in", "target_new": "Spain"}
    (folder / "facts.json").write_text(json.dumps([good, bad, good, 7]))
    assert cli("facts", "check", "facts.json") == (
        1,
        "facts.json: format native, 2 of 4 records usable.\n"
        "record 1: subject 'Rome' is not in the prompt 'It is in'; mark its place with {}.\n"
        "record 3: a record must be an object; it is a number.\n",
        "",
    )


def test_facts_show_prints_no_more_than_there_are_and_no_control_characters(cli, folder):
    fact = {"subject": "Rome\x1b[31m", "prompt": "{} [bold]is[/bold] in", "target_new": "Spain", "rephrase": ["a\nb"]}
    fact["portability"] = [{"prompt": "Its king is the king of", "target": "Spain"}]
    (folder / "facts.json").write_text(json.dumps([fact]))
    assert cli("facts", "show", "facts.json", "--limit", 9) == (
        0,
        "Rome\\x1b[31m [bold]is[/bold] in → Spain\n"
        "  subject    Rome\\x1b[31m\n"
        "  rephrased  a\\nb\n"
        "  follows    Its king is the king of → Spain\n\n"
        "1 of 1 facts of facts.json\n",
        "",
    )


def test_facts_show_draws_with_a_seed(cli):
    facts = wb.load_facts()
    result = cli("facts", "show", "--limit", 2, "--seed", 3)
    titles = [line for line in result.out.splitlines() if " → " in line and not line.startswith(" ")]
    assert titles == [f"{r.filled_prompt} → {r.target_new} (true: {r.target_true})" for r in facts.sample(2, seed=3)]
