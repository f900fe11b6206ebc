"""Texts as chunks of tokens: what is read, in which order, how far, and what is refused."""

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from tests.helpers import error_of
from tests.tiny_models import SENTENCES, byte_level_tokenizer, sentencepiece_tokenizer
from workbench.editing.second_moment.texts import HUB_NAMES, cut_into_chunks, find_source
from workbench.encoding import opening_ids
from workbench.errors import EditError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKENIZERS = {
    "GPT-2": (byte_level_tokenizer(), []),
    "OPT": (byte_level_tokenizer(bos=True), ["<|endoftext|>"]),
    "Llama": (sentencepiece_tokenizer(), ["<s>"]),
    "Mistral": (sentencepiece_tokenizer(start="first"), ["<s>"]),
    "Gemma": (sentencepiece_tokenizer(start="never"), ["<s>"]),
    "T5": (sentencepiece_tokenizer(eos=True), ["<s>"]),
}


@pytest.fixture(params=TOKENIZERS)
def tokenizer_and_opening(request):
    """Give a tokenizer and the special tokens that open its texts, as written down by hand."""
    tokenizer, opening = TOKENIZERS[request.param]
    return tokenizer, tokenizer.convert_tokens_to_ids(opening)


def write_parquet(path, **columns):
    path.parent.mkdir(exist_ok=True, parents=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def documents(name):
    return list(find_source(str(name)).documents())


def test_chunks_are_the_texts_tokens_in_order_each_after_the_opening_tokens(tokenizer_and_opening, tmp_path):
    tokenizer, opening = tokenizer_and_opening
    path = tmp_path / "text.txt"
    path.write_text("\n".join(SENTENCES))
    chunks = cut_into_chunks(tokenizer, find_source(str(path)), n_tokens=50, length=16).tolist()
    body = 16 - len(opening)
    ids = tokenizer("\n".join(SENTENCES), add_special_tokens=False)["input_ids"]
    assert opening_ids(tokenizer) == tuple(opening)
    assert chunks == [opening + ids[i * body : (i + 1) * body] for i in range(3)]  # 48 of 50 tokens


def test_a_short_source_gives_the_whole_chunks_that_it_has(tokenizer_and_opening, tmp_path):
    tokenizer, opening = tokenizer_and_opening
    path = tmp_path / "text.txt"
    path.write_text(SENTENCES[0])
    n_ids = len(tokenizer(SENTENCES[0], add_special_tokens=False)["input_ids"])
    length = 8
    chunks = cut_into_chunks(tokenizer, find_source(str(path)), n_tokens=10_000, length=length)
    assert chunks.shape == (n_ids // (length - len(opening)), length)
    assert len(chunks) > 1


def test_an_empty_source_gives_no_chunks(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("")
    assert cut_into_chunks(byte_level_tokenizer(), find_source(str(path)), n_tokens=512).shape == (0, 256)


def test_a_long_file_is_read_in_pieces_of_whole_lines_and_nothing_is_lost(tmp_path):
    path, text = tmp_path / "text.txt", "".join(f"{i} {SENTENCES[i % 6]}\n\n" for i in range(3000))
    path.write_text(text)
    pieces = documents(path)
    assert len(pieces) > 3
    assert "".join(pieces) == text
    assert all(piece.endswith("\n") for piece in pieces)


def test_a_file_of_one_endless_line_is_read_in_pieces_too(tmp_path):
    path, text = tmp_path / "text.txt", " ".join(SENTENCES) * 2000
    path.write_text(text)
    pieces = documents(path)
    assert max(map(len, pieces)) <= 1 << 17
    assert "".join(pieces) == text


def test_nothing_is_read_beyond_the_budget(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"The river. " * 100_000 + b"\xff")  # not UTF-8 at its end
    source = find_source(str(path))
    assert len(cut_into_chunks(byte_level_tokenizer(), source, n_tokens=4096)) == 16
    assert error_of(EditError, cut_into_chunks, byte_level_tokenizer(), source, n_tokens=10_000_000).startswith(
        f"{path} cannot be read ('utf-8' codec can't decode byte 0xff in position "
    )


def test_a_byte_order_mark_is_no_text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes("\ufeffRome".encode())
    assert documents(path) == ["Rome"]


def test_a_folder_is_its_text_files_in_the_order_of_their_paths(tmp_path):
    for name, text in (("b.txt", "2"), ("a/z.txt", "1"), ("c/d/e.txt", "3"), ("a/notes.md", "no"), ("x.json", "no")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    write_parquet(tmp_path / "a.parquet", text=["no"])
    assert documents(tmp_path) == ["1", "2", "3"]


def test_a_folder_without_text_files_is_its_parquet_files(tmp_path):
    write_parquet(tmp_path / "odd [1] *" / "b.parquet", text=["three"], id=[3])
    write_parquet(tmp_path / "odd [1] *" / "a.parquet", text=["one", None, "two é"], id=[1, 0, 2])
    assert documents(tmp_path) == ["one", "", "two é", "three"]
    assert documents(tmp_path / "odd [1] *" / "b.parquet") == ["three"]


def test_rows_and_text_files_of_the_same_documents_give_the_same_chunks(tmp_path):
    write_parquet(tmp_path / "rows" / "a.parquet", text=SENTENCES)
    (tmp_path / "files").mkdir()
    for i, sentence in enumerate(SENTENCES):
        (tmp_path / "files" / f"{i}.txt").write_text(sentence)
    both = [
        cut_into_chunks(byte_level_tokenizer(), find_source(str(tmp_path / name)), n_tokens=96, length=32).tolist()
        for name in ("rows", "files")
    ]
    assert both[0] == both[1]
    assert len(both[0]) == 3


def test_a_folder_without_texts_is_refused(tmp_path):
    (tmp_path / "a.md").write_text("no")
    assert error_of(EditError, find_source, str(tmp_path)) == (
        f"the folder {tmp_path} holds no *.txt and no *.parquet file; put the texts in it as such."
    )


@pytest.mark.parametrize("columns", [{"body": ["one"], "id": [1]}, {"text": [["one"]], "id": [1]}])
def test_rows_without_a_column_of_texts_are_refused(tmp_path, columns):
    path = write_parquet(tmp_path / "a.parquet", **columns)
    assert error_of(EditError, documents, path) == (
        f"{path} has no column 'text' of texts; its columns are {', '.join(columns)}."
    )


def test_a_file_that_is_not_parquet_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"Rome" * 10)
    sentence = error_of(EditError, documents, path)
    assert sentence.startswith(f"{path} cannot be read (Parquet magic bytes not found in footer. ")
    assert sentence.endswith("); give Parquet files with texts in them.")
    assert len(sentence.splitlines()) == 1


def test_an_unknown_name_is_refused_with_the_possible_forms(tmp_path):
    for name in (str(tmp_path / "nowhere.txt"), "owner/name", f"owner/name@{COMMIT[:-1]}", f"name@{COMMIT}"):
        assert error_of(EditError, find_source, name) == (
            f"no text source {name!r}: it is neither a file nor a folder, nor one of wikitext, wikipedia, nor a data "
            "set of the hub written as owner/name:config@commit with a commit of 40 hexadecimal digits."
        )


@pytest.mark.parametrize(
    ("name", "dataset"),
    [
        ("wikitext", ("Salesforce/wikitext", "wikitext-103-raw-v1", "b08601e04326c79dfdd32d625aee71d232d685c3")),
        ("wikipedia", ("wikimedia/wikipedia", "20231101.en", "b04c8d1ceb2f5cd4588862100d08de323dccfbaa")),
        (f"owner/name:plain@{COMMIT}", ("owner/name", "plain", COMMIT)),
        (f"owner/name@{COMMIT}", ("owner/name", None, COMMIT)),
    ],
)
def test_the_hub_is_asked_for_a_pinned_commit_and_its_rows_are_streamed(tmp_path, monkeypatch, name, dataset):
    # the hub cannot be reached from tests: a local file stands in for what it would send
    path, load_dataset = write_parquet(tmp_path / "a.parquet", text=list(SENTENCES)), datasets.load_dataset
    calls = []

    def from_file(**given):
        calls.append(given)
        return load_dataset("parquet", data_files=[str(path)], split=given["split"], streaming=given["streaming"])

    monkeypatch.setattr(datasets, "load_dataset", from_file)
    repo, config, revision = dataset
    assert documents(name) == list(SENTENCES)
    assert calls == [{"path": repo, "name": config, "revision": revision, "split": "train", "streaming": True}]


@pytest.mark.parametrize("name", HUB_NAMES)
def test_without_the_hub_the_cure_is_named(name):
    repo = HUB_NAMES[name].split(":")[0]
    assert error_of(EditError, documents, name) == (
        f"{HUB_NAMES[name]} cannot be read (Couldn't reach '{repo}' on the Hub (OfflineModeIsEnabled)); "
        "check the connection and HF_HUB_OFFLINE, or give a file or folder of texts."
    )


def test_a_file_wins_over_a_name_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wikitext").write_text("mine")
    assert documents("wikitext") == ["mine"]


def test_the_digest_depends_on_content_and_order_and_not_on_paths(tmp_path):
    texts = {"a/1.txt": "one", "a/2.txt": "two", "b/x.txt": "one", "b/y.txt": "two", "c/1.txt": "two", "c/2.txt": "one"}
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    a, b, c = (find_source(str(tmp_path / name)).digest() for name in "abc")
    assert a == b
    assert a != c
    (tmp_path / "a" / "2.txt").write_text("two!")
    assert find_source(str(tmp_path / "a")).digest() != a


def test_the_digest_of_a_data_set_of_the_hub_depends_on_name_config_and_commit_and_needs_no_hub():
    other = COMMIT.replace("0", "f")
    names = [f"o/n@{COMMIT}", f"o/n@{other}", f"o/n:c@{COMMIT}", f"o/m@{COMMIT}"]
    assert len({find_source(name).digest() for name in names}) == 4
