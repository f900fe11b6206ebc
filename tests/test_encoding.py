"""Token ids, boundaries and the subject's position for both kinds of tokenizers; padding by worked examples."""

import pytest

from tests.tiny_models import byte_level_tokenizer, dropping_tokenizer, sentencepiece_tokenizer
from workbench.encoding import Encoded, encode, encode_request, is_first_token, join_target, pad
from workbench.errors import RequestError
from workbench.request import EditRequest

TOKENIZERS = {
    "byte level": byte_level_tokenizer,
    "byte level, <s>": lambda: byte_level_tokenizer(bos=True),
    "sentencepiece, ▁ prepended": sentencepiece_tokenizer,
    "sentencepiece, ▁ first": lambda: sentencepiece_tokenizer(start="first"),
    "sentencepiece, no ▁": lambda: sentencepiece_tokenizer(start="never"),
}
TEXTS = [
    ("The Eiffel Tower is located in the city of", "Rome"),
    ("Edith Piaf: the mother tongue is", "Provençal 🗼"),
    ("Where is it?", "Bad Segeberg."),
    ("北京 is in", "中国"),
    ("Quote: “", "Rome"),
]
TWICE = EditRequest(
    subject="The Louvre", prompt="Not like The Louvre, {} is near The Louvre in", target_new="Rome"
)  # three times, {} marks the second


@pytest.fixture(params=[*TOKENIZERS, "the embedded model's"])
def tokenizer(request):
    """Give a tokenizer of each kind, and that of the embedded model."""
    if request.param in TOKENIZERS:
        return TOKENIZERS[request.param]()
    return request.getfixturevalue("smollm2").tokenizer


@pytest.mark.parametrize(("prompt", "target"), TEXTS)
def test_prompt_and_target_have_the_ids_of_the_running_text(tokenizer, prompt, target):
    encoded = encode(tokenizer, prompt, target)
    assert list(encoded.ids) == tokenizer(f"{prompt} {target}")["input_ids"]
    assert encoded.prompt_ids + encoded.target_ids == encoded.ids


@pytest.mark.parametrize(("prompt", "target"), TEXTS)
def test_the_target_tokens_spell_the_target(tokenizer, prompt, target):
    encoded = encode(tokenizer, prompt, target)
    assert tokenizer.decode(encoded.target_ids).strip() == target
    assert tokenizer.decode(encoded.prompt_ids, skip_special_tokens=True).strip() == prompt


def test_a_blank_before_the_target_is_not_doubled(tokenizer):
    assert encode(tokenizer, "It is in", " Rome") == encode(tokenizer, "It is in", "Rome")


def test_a_blank_after_the_prompt_belongs_to_the_targets_first_token(tokenizer):
    assert encode(tokenizer, "It is in ", "Rome") == encode(tokenizer, "It is in", "Rome")


def test_without_a_target_all_tokens_are_of_the_prompt(tokenizer):
    encoded = encode(tokenizer, "It is in the north")
    assert list(encoded.ids) == tokenizer("It is in the north")["input_ids"]
    assert encoded.target_ids == ()
    assert encoded.subject_last is None


@pytest.mark.parametrize(
    ("prompt", "target", "text"),
    [
        ("in", "Rome", "in Rome"),
        ("in", "  Rome", "in Rome"),
        ("in\n", "Rome", "in\nRome"),
        ("in ", " Rome", "in Rome"),
    ],
)
def test_running_text_has_one_blank_unless_the_prompt_ends_in_white_space(prompt, target, text):
    assert join_target(prompt, target) == text


@pytest.mark.parametrize("context", ["{}", "The Louvre is old. {}", "I think that The Louvre. {}"])
def test_the_subject_is_the_marked_one_however_often_it_occurs(tokenizer, context):
    text = context.replace("{}", "Not like The Louvre, The Louvre is near The Louvre in Rome")
    last_character = text.index(", The Louvre is") + len(", The Louvre") - 1
    encoded = encode_request(tokenizer, TWICE, context=context)
    assert list(encoded.ids) == tokenizer(text)["input_ids"]
    assert encoded.subject_last == tokenizer(text).char_to_token(last_character)


@pytest.mark.parametrize("subject", ["The", "Edith Piaf", "Marie Curie's", "I"])
def test_the_subject_may_begin_the_text(tokenizer, subject):
    request = EditRequest(subject=subject, prompt="{} is in", target_new="Rome")
    expected = tokenizer(f"{subject} is in Rome").char_to_token(len(subject) - 1)
    assert encode_request(tokenizer, request).subject_last == expected


def test_the_subject_may_end_the_prompt(tokenizer):
    request = EditRequest(subject="the Louvre", prompt="Where is {}", target_new="Rome")
    encoded = encode_request(tokenizer, request)
    assert encoded.subject_last == encoded.n_prompt - 1


@pytest.mark.parametrize("name", ["byte level", "sentencepiece, ▁ prepended"])
def test_the_last_byte_of_the_subjects_last_character_counts(name):
    tokenizer = TOKENIZERS[name]()
    encoded = encode_request(tokenizer, EditRequest(subject="Café", prompt="In {} is", target_new="Rome"))
    bytes_of_e = {"byte level": ["Ã", "©"], "sentencepiece, ▁ prepended": ["<0xC3>", "<0xA9>"]}[name]
    tokens = tokenizer.convert_ids_to_tokens(encoded.ids)
    assert tokens[encoded.subject_last - 1 : encoded.subject_last + 1] == bytes_of_e


def test_another_target_than_the_new_one_can_follow(tokenizer):
    request = EditRequest(subject="The Louvre", prompt="{} is in", target_new="Rome")
    assert (
        list(encode_request(tokenizer, request, target="Paris").ids) == tokenizer("The Louvre is in Paris")["input_ids"]
    )
    assert encode_request(tokenizer, request, target="").target_ids == ()


def test_a_target_without_tokens_is_refused():
    request = EditRequest(subject="The Louvre", prompt="{} is in", target_new="\u200b")
    with pytest.raises(RequestError) as caught:
        encode_request(dropping_tokenizer(), request)
    assert str(caught.value) == (
        r"target '\u200b' tokenizes to nothing after 'The Louvre is in'; give a target with text in it."
    )


def test_closing_special_tokens_are_cut_off():
    closing, plain = sentencepiece_tokenizer(eos=True), sentencepiece_tokenizer()
    assert closing("It is in Rome")["input_ids"][-1] == closing.eos_token_id  # or this test tests nothing
    for target in ("Rome", ""):
        request = EditRequest(subject="The Louvre", prompt="{} is in", target_new="Rome")
        assert encode_request(closing, request, target=target) == encode_request(plain, request, target=target)


def test_prompt_and_target_are_divided_at_n_prompt():
    encoded = Encoded(ids=(7, 8, 9), n_prompt=2)
    assert (encoded.prompt_ids, encoded.target_ids) == ((7, 8), (9,))


def test_padding_aligns_the_chosen_tokens():
    batch = pad([(11, 12, 13), (21, 22)], align=[2, 0], pad_id=9)
    assert batch.ids.tolist() == [[11, 12, 13, 9], [9, 9, 21, 22]]
    assert batch.mask.tolist() == [[1, 1, 1, 0], [0, 0, 1, 1]]
    assert [row[2] for row in batch.positions.tolist()] == [2, 0]
    assert batch.positions[1].tolist() == [0, 0, 0, 1]


def test_padding_is_on_the_right_by_default():
    batch = pad([(11, 12, 13), (21,)])
    assert batch.ids.tolist() == [[11, 12, 13], [21, 0, 0]]
    assert batch.mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.positions[0].tolist() == [0, 1, 2]


def test_aligning_the_last_tokens_pads_on_the_left():
    batch = pad([(11, 12, 13), (21,)], align=[2, 0])
    assert batch.ids.tolist() == [[11, 12, 13], [0, 0, 21]]
    assert batch.mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert batch.positions[:, 2].tolist() == [2, 0]


def test_a_batch_names_the_inputs_of_a_forward_pass():
    batch = pad([(1, 2)])
    assert batch.model_inputs == {
        "input_ids": batch.ids,
        "attention_mask": batch.mask,
        "position_ids": batch.positions,
    }


@pytest.mark.parametrize(
    ("prompt", "subject"), [("{} is red", "a"), ("The {} is red", "a"), ("{} is red", "abc def ghi jkl mno")]
)
def test_a_subject_is_the_first_token_only_if_it_is_one_token_and_opens_the_prompt(tokenizer, prompt, subject):
    request = EditRequest(subject=subject, prompt=prompt, target_new="blue")
    one_token = len(tokenizer(subject, add_special_tokens=False)["input_ids"]) == 1
    assert is_first_token(tokenizer, request) == (one_token and prompt.startswith("{}"))
