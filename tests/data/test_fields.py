"""Values of fields are returned unchanged, or refused in a sentence that names the field and the kind of its value."""

import pytest

from tests.helpers import error_of
from workbench.data.fields import FieldError, check_objects, check_texts, get_array, get_object, get_text
from workbench.errors import DataError, RequestError

RECORD = {"text": "a", "number": 1.5, "array": ["a", "b"], "object": {"a": 1}, "null": None, "yes": True}
KINDS = {
    "text": "text",
    "number": "a number",
    "array": "an array",
    "object": "an object",
    "null": "null",
    "yes": "true",
    "absent": "missing",
}
GETTERS = {"text": get_text, "array": get_array, "object": get_object}


@pytest.mark.parametrize("field", KINDS)
@pytest.mark.parametrize("wanted", GETTERS)
def test_a_value_is_returned_or_its_kind_is_named(field, wanted):
    if field == wanted:
        assert GETTERS[wanted](RECORD, field) is RECORD[field]
    else:
        sentence = error_of(FieldError, GETTERS[wanted], RECORD, field)
        assert sentence == f"{field} must be {KINDS[wanted]}; it is {KINDS[field]}."


def test_an_item_of_the_wrong_type_is_named_with_its_place():
    assert error_of(FieldError, check_texts, ["a", 2], "options") == "options[1] must be text; it is a number."
    assert error_of(FieldError, check_objects, [{}, []], "ctxs") == "ctxs[1] must be an object; it is an array."


def test_a_field_error_is_the_error_of_both_readers():
    assert issubclass(FieldError, RequestError)
    assert issubclass(FieldError, DataError)
