"""RagRetriever: from question vectors to contexts, saving and loading, and the models that call it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ragweave import MemoryIndex, RagConfig, RagRetriever
from ragweave.errors import ConfigurationError, IndexDataError, QuestionError
from ragweave.retrieval.rag_retriever import build_index
from tests.support import models, retrieval
from tests.support.models import FORMULATIONS

pytestmark = pytest.mark.usefixtures("quiet_transformers")

N = len(retrieval.PASSAGES)
QUESTION_TOKENIZER, TOKENIZER = retrieval.question_tokenizer(), retrieval.generator_tokenizer()


class OwnIndex:
    """An index that a user might write: a dictionary of passages, and a record of how it was asked."""

    def __init__(self) -> None:
        self.vectors = retrieval.vectors()
        self.ready = 0
        self.asked: list[int] = []

    def init_index(self) -> None:
        self.ready += 1

    def is_initialized(self) -> bool:
        return self.ready > 0

    def get_top_docs(self, question_hidden_states: Any, n_docs: int = 5) -> tuple[Any, Any]:
        self.asked.append(len(question_hidden_states))
        rows = retrieval.best_rows(question_hidden_states, self.vectors, n_docs)
        return rows.tolist(), [self.vectors[own] for own in rows]

    def get_doc_dicts(self, doc_ids: Any) -> list[dict[str, Any]]:
        return [
            {"title": [f"title {row}" for row in own], "text": [f"text {row}" for row in own]}
            for own in doc_ids
        ]


def memory_index(n_passages: int = N) -> MemoryIndex:
    titles, texts = zip(*retrieval.PASSAGES[:n_passages], strict=True)
    return MemoryIndex(texts, retrieval.vectors(n_passages), titles)


def retriever(index: Any = None, **fields: Any) -> RagRetriever:
    index = memory_index() if index is None else index
    return RagRetriever(retrieval.config(**fields), QUESTION_TOKENIZER, TOKENIZER, index=index)


def asked(n_questions: int = 3) -> dict[str, Any]:
    ids = QUESTION_TOKENIZER(list(retrieval.QUESTIONS[:n_questions]), padding=True)["input_ids"]
    return {"question_input_ids": ids, "question_hidden_states": retrieval.questions(n_questions)}


def same(one: Any, other: Any) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


# One call.


def test_a_call_finds_passages_and_makes_contexts() -> None:
    found = retriever()(**asked(), return_tensors="pt")
    rows = retrieval.best_rows(retrieval.questions(), retrieval.vectors(), 3)
    assert found["context_input_ids"].shape == found["context_attention_mask"].shape == (9, 100)
    assert found["doc_ids"].tolist() == rows.tolist()
    assert np.array_equal(found["retrieved_doc_embeds"].numpy(), retrieval.vectors()[rows])
    assert found["retrieved_doc_embeds"].dtype == torch.float32
    title, text = retrieval.PASSAGES[rows[1, 2]]
    assert retrieval.texts_of(found)[5] == f"{title.strip(chr(34))} / {text} // who founded rome?"


def test_questions_are_decoded_or_taken_as_they_were_written() -> None:
    make = retriever()
    decoded = retrieval.texts_of(make(**asked(1)))
    assert decoded[0].endswith(" // where is paris?")  # as BERT's tokenizer decodes
    written = retrieval.texts_of(
        make(None, asked(1)["question_hidden_states"], question_strings=["Where's  Paris?!"])
    )
    assert written[0].endswith(" // Where's Paris?!")


def test_n_docs_of_the_call_comes_before_the_configurations() -> None:
    make = retriever(n_docs=4)
    assert np.shape(make(**asked())["doc_ids"]) == (3, 4)
    assert np.shape(make(**asked(), n_docs=2)["doc_ids"]) == (3, 2)


def test_prefix_and_padding_of_the_call() -> None:
    found = retriever()(**asked(), prefix="read: ", padding="longest", return_tensors="pt")
    assert all(text.startswith("read: ") for text in retrieval.texts_of(found))
    assert found["context_input_ids"].shape[1] == found["context_attention_mask"].sum(1).max() < 100


def test_without_tensors_contexts_are_lists() -> None:
    found = retriever()(**asked())
    assert isinstance(found["context_input_ids"], list)
    assert isinstance(found["context_input_ids"][0][0], int)
    assert isinstance(retriever()(**asked(), return_tensors="np")["context_input_ids"], np.ndarray)


def test_fewer_passages_than_asked_for() -> None:
    found = retriever(memory_index(2))(**asked(2), n_docs=4, return_tensors="pt")
    assert (found["doc_ids"] >= 0).tolist() == [[True, True, False, False]] * 2
    assert not found["retrieved_doc_embeds"][:, 2:].any()
    assert retrieval.texts_of(found)[2] == retrieval.texts_of(found)[3] == " / // where is paris?"


@pytest.mark.parametrize(("size", "calls"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (8, [5])])
def test_retrieval_batch_size(size: int, calls: list[int]) -> None:
    index = OwnIndex()
    make = retriever(index, retrieval_batch_size=size)
    vectors = retrieval.questions(5)
    found, rows, docs = make.retrieve(vectors, 3)
    assert index.asked == calls
    assert rows.tolist() == retrieval.best_rows(vectors, index.vectors, 3).tolist()
    assert found.shape == (5, 3, models.DIMENSION)
    assert docs[4]["text"] == [f"text {row}" for row in rows[4]]


def test_an_index_of_ones_own_is_initialised_once() -> None:
    index = OwnIndex()
    make = RagRetriever(retrieval.config(), QUESTION_TOKENIZER, TOKENIZER, index=index, init_retrieval=False)
    assert index.ready == 0
    for _ in range(2):
        found = make(**asked())
    assert index.ready == 1
    assert (
        retrieval.texts_of(found)[0]
        == f"title {found['doc_ids'][0][0]} / text {found['doc_ids'][0][0]} // where is paris?"
    )


def test_an_index_that_returns_too_few_columns_is_refused() -> None:
    class Short(OwnIndex):
        def get_top_docs(self, question_hidden_states: Any, n_docs: int = 5) -> tuple[Any, Any]:
            return super().get_top_docs(question_hidden_states, n_docs - 1)

    with pytest.raises(IndexDataError, match=r"shape \(3, 2\).*expected \(3, 3\)"):
        retriever(Short())(**asked())


def test_calls_that_cannot_work() -> None:
    make, vectors = retriever(), retrieval.questions()
    with pytest.raises(QuestionError, match="2 questions, but 3 question vectors"):
        make(None, vectors, question_strings=["a", "b"])
    with pytest.raises(QuestionError, match="question_strings"):
        make(None, vectors)
    with pytest.raises(QuestionError, match="at least one"):
        make(None, vectors[:0], question_strings=[])
    with pytest.raises(ConfigurationError, match="n_docs is 0"):
        make(**asked(), n_docs=0)
    with pytest.raises(QuestionError, match="max_combined_length=100"):
        make(None, vectors[:1], question_strings=["why ? " * 100])
    with pytest.raises(IndexDataError, match="dimension 16"):
        make(asked()["question_input_ids"], np.zeros((3, 4), np.float32))


def test_tokenised_passages_for_a_context_encoder() -> None:
    make = retriever()
    assert not make.return_tokenized_docs
    assert "tokenized_doc_ids" not in make(**asked())
    make.set_ctx_encoder_tokenizer(QUESTION_TOKENIZER)
    assert make.return_tokenized_docs
    found = make(**asked(), return_tensors="pt")
    rows = found["doc_ids"].flatten().tolist()
    expected = QUESTION_TOKENIZER(
        *map(list, zip(*(retrieval.PASSAGES[row] for row in rows), strict=True)),
        truncation=True,
        padding="longest",
        return_tensors="pt",
    )
    assert torch.equal(found["tokenized_doc_ids"], expected["input_ids"])
    assert torch.equal(found["tokenized_doc_attention_mask"], expected["attention_mask"])


# From a folder, and back.


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with a configuration and both tokenizers, but no index."""
    RagRetriever(retrieval.config(), QUESTION_TOKENIZER, TOKENIZER, index=memory_index()).save_pretrained(
        tmp_path / "base"
    )
    return tmp_path / "base"


def expected() -> Any:
    return retriever()(**asked(), return_tensors="pt")


def test_from_pretrained_with_a_dataset(base: Path) -> None:
    passages = retrieval.dataset()
    make = RagRetriever.from_pretrained(base, indexed_dataset=passages)
    assert same(make(**asked(), return_tensors="pt"), expected())
    assert passages.list_indexes() == ["embeddings"]


def test_from_pretrained_with_an_index_of_ones_own(base: Path) -> None:
    index = OwnIndex()
    assert RagRetriever.from_pretrained(base, index=index).index is index


def test_from_pretrained_with_paths(base: Path, tmp_path: Path) -> None:
    passages_path, index_path = retrieval.saved_dataset(tmp_path)
    make = RagRetriever.from_pretrained(
        base, index_name="custom", passages_path=passages_path, index_path=index_path, n_docs=3
    )
    assert make.index.is_initialized()
    assert same(make(**asked(), return_tensors="pt"), expected())


def test_from_a_configuration_with_paths(tmp_path: Path) -> None:
    passages_path, index_path = retrieval.saved_dataset(tmp_path, factory="HNSW8")
    config = retrieval.config(passages_path=passages_path, index_path=index_path)
    make = RagRetriever(config, QUESTION_TOKENIZER, TOKENIZER, init_retrieval=False)
    assert not make.index.is_initialized()
    assert same(make(**asked(), return_tensors="pt"), expected())


def test_paths_relative_to_where_the_caller_is(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retrieval.saved_dataset(tmp_path)
    retrieval.saved_dataset(base, 3)  # the folder's own of the same name is not meant
    monkeypatch.chdir(tmp_path)
    make = RagRetriever.from_pretrained(
        base, index_name="custom", passages_path="passages", index_path="passages.faiss"
    )
    assert same(make(**asked(), return_tensors="pt"), expected())


def test_a_missing_index_is_named(base: Path) -> None:
    with pytest.raises(IndexDataError, match="passages_path does not exist: nowhere"):
        RagRetriever.from_pretrained(base, index_name="custom", passages_path="nowhere", index_path="no")
    with pytest.raises(IndexDataError, match="needs passages_path"):
        build_index(retrieval.config())


def test_files_of_an_index_are_copied_only_on_request(base: Path, tmp_path: Path) -> None:
    RagRetriever.from_pretrained(base, indexed_dataset=retrieval.dataset()).save_pretrained(tmp_path / "one")
    opened = RagRetriever.from_pretrained(tmp_path / "one")
    opened.save_pretrained(tmp_path / "two")
    opened.save_pretrained(tmp_path / "three", copy_index=True)
    assert not list((tmp_path / "two").rglob("*.faiss"))
    assert list((tmp_path / "three").rglob("*.faiss"))
    question = retrieval.questions(1)
    expected = opened.retrieve(question, 2)[1]
    for name in ("two", "three"):
        assert np.array_equal(
            RagRetriever.from_pretrained(tmp_path / name).retrieve(question, 2)[1], expected
        )
    shutil.rmtree(tmp_path / "one")
    assert np.array_equal(RagRetriever.from_pretrained(tmp_path / "three").retrieve(question, 2)[1], expected)
    with pytest.raises(IndexDataError, match="passages_path does not exist"):
        RagRetriever.from_pretrained(tmp_path / "two")


def test_a_saved_folder_can_be_moved(base: Path, tmp_path: Path) -> None:
    RagRetriever.from_pretrained(base, indexed_dataset=retrieval.dataset()).save_pretrained(tmp_path / "one")
    saved = json.loads((tmp_path / "one" / "config.json").read_text(encoding="utf-8"))
    assert (saved["passages_path"], saved["index_path"]) == ("hf_dataset", "hf_dataset_index.faiss")
    shutil.move(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(base)
    assert same(RagRetriever.from_pretrained(tmp_path / "two")(**asked(), return_tensors="pt"), expected())


def test_a_configuration_of_the_callers_finds_the_folders_index(base: Path) -> None:
    RagRetriever.from_pretrained(base, indexed_dataset=retrieval.dataset()).save_pretrained(base)
    config = RagConfig.from_pretrained(base, n_docs=2)
    found = RagRetriever.from_pretrained(base, config=config)(**asked(), return_tensors="pt")
    assert torch.equal(found["doc_ids"], expected()["doc_ids"][:, :2])


def test_every_save_holds_the_index(base: Path, tmp_path: Path) -> None:
    make = RagRetriever.from_pretrained(base, indexed_dataset=retrieval.dataset())
    for number in range(3):
        folder = tmp_path / f"save {number}"
        make.save_pretrained(folder)
        assert not (folder / ".saving").exists()
        make = RagRetriever.from_pretrained(folder)
    make.save_pretrained(folder)  # where it was loaded from, whose files it has open
    again = RagRetriever.from_pretrained(folder)
    for loaded in (make, again):
        assert same(loaded(**asked(), return_tensors="pt"), expected())


def test_saving_leaves_the_callers_dataset_and_configuration_alone(base: Path) -> None:
    passages = retrieval.dataset()
    faiss_index = passages.get_index("embeddings").faiss_index
    make = RagRetriever.from_pretrained(base, indexed_dataset=passages)
    before = make.config.to_dict()
    make.save_pretrained(base)
    assert make.config.to_dict() == before
    assert passages.list_indexes() == ["embeddings"]
    assert passages.get_index("embeddings").faiss_index is faiss_index
    assert passages.get_nearest_examples("embeddings", retrieval.vectors()[4], k=1).examples["title"] == [
        "Cairo"
    ]


def test_a_save_that_fails_leaves_the_last_one(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RagRetriever.from_pretrained(base, indexed_dataset=retrieval.dataset()).save_pretrained(base)
    before = {path.relative_to(base): path.stat().st_mtime_ns for path in base.rglob("*")}
    changed = retrieval.dataset(3)
    make = RagRetriever.from_pretrained(base, indexed_dataset=changed)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(TOKENIZER), "save_pretrained", full)  # the last thing that is written
    with pytest.raises(OSError, match="No space"):
        make.save_pretrained(base)
    after = {path.relative_to(base): path.stat().st_mtime_ns for path in base.rglob("*")}
    assert after == before
    assert same(RagRetriever.from_pretrained(base)(**asked(), return_tensors="pt"), expected())


def test_saving_over_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="is a file"):
        retriever().save_pretrained(tmp_path / "file")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_other_files_in_the_folder_stay(base: Path) -> None:
    (base / "model.safetensors").write_text("weights", encoding="utf-8")
    retriever().save_pretrained(base)
    assert (base / "model.safetensors").read_text(encoding="utf-8") == "weights"
    assert [path.name for path in base.iterdir() if path.name.startswith(".")] == []


# The models that call it.


def rag_model(formulation: str, generator: str, make: RagRetriever) -> Any:
    return models.rag_model(
        models.CLASSES[formulation],
        generator,
        retriever=make,
        vocab_size=len(TOKENIZER),
        n_docs=make.config.n_docs,
    )


def labels() -> torch.Tensor:
    return TOKENIZER([" the river", " a city in France"], padding=True, return_tensors="pt")["input_ids"]


def dataset_retriever(n_passages: int = N, **fields: Any) -> RagRetriever:
    from ragweave.retrieval.dataset import DatasetIndex

    return retriever(DatasetIndex(models.DIMENSION, retrieval.dataset(n_passages)), **fields)


@pytest.mark.parametrize("generator", ["bart", "llama"])
@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_a_model_retrieves_learns_and_answers(formulation: str, generator: str) -> None:
    model = rag_model(formulation, generator, dataset_retriever())
    output = model(**retrieval.question_batch(), labels=labels(), output_retrieved=True)
    assert output.doc_scores.shape == (2, 3)
    vectors, _ = model.rag.encode_question(**retrieval.question_batch())
    rows = retrieval.best_rows(vectors.detach().numpy(), retrieval.vectors(), 3)
    assert output.retrieved_doc_ids.tolist() == rows.tolist()
    wanted = (vectors[:, None] * torch.from_numpy(retrieval.vectors()[rows])).sum(-1)
    assert torch.allclose(output.doc_scores, wanted, atol=1e-5)
    output.loss.sum().backward()
    gradients = [parameter.grad for parameter in model.question_encoder.parameters()]
    assert sum(float(gradient.abs().sum()) for gradient in gradients if gradient is not None) > 0
    answers = model.generate(**retrieval.question_batch(), max_new_tokens=4, num_beams=2)
    assert answers.shape[0] == 2
    assert len(TOKENIZER.batch_decode(answers, skip_special_tokens=True)) == 2


@pytest.mark.parametrize("generator", ["bart", "llama"])
@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_passages_that_are_not_there_count_for_nothing(formulation: str, generator: str) -> None:
    model = rag_model(formulation, generator, dataset_retriever(2, n_docs=5))
    with torch.no_grad():
        many = model(**retrieval.question_batch(), labels=labels())
        two = model(**retrieval.question_batch(), labels=labels(), n_docs=2)
    assert (many.doc_scores[:, 2:] == float("-inf")).all()
    assert torch.allclose(many.loss, two.loss, atol=1e-5)
    options = {"max_new_tokens": 5, "num_beams": 2}
    assert torch.equal(
        model.generate(**retrieval.question_batch(), **options),
        model.generate(**retrieval.question_batch(), n_docs=2, **options),
    )


def test_gradient_through_missing_passages_is_a_number() -> None:
    model = rag_model("token", "bart", dataset_retriever(2, n_docs=5))
    model(**retrieval.question_batch(), labels=labels()).loss.sum().backward()
    assert all(
        bool(parameter.grad.isfinite().all())
        for parameter in model.parameters()
        if parameter.grad is not None
    )


def test_a_context_encoder_is_trained_with_its_tokenizer() -> None:
    make = dataset_retriever()
    make.set_ctx_encoder_tokenizer(QUESTION_TOKENIZER)
    model = rag_model("sequence", "bart", make)
    import transformers

    encoder = transformers.AutoModel.from_config(models.question_encoder_config())
    models.randomise(encoder, 3)
    model.set_context_encoder_for_training(encoder)
    model(**retrieval.question_batch(), labels=labels()).loss.sum().backward()
    assert any(
        parameter.grad is not None and bool(parameter.grad.any()) for parameter in encoder.parameters()
    )
