"""RagPipeline: answers, their scores, batches, streams, saving and loading, and changes of the knowledge base."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ragweave import KnowledgeBase, RagConfig, RagPipeline, RagTokenForGeneration, RagTokenizer
from ragweave.errors import (
    ConfigurationError,
    EncoderMismatchError,
    KnowledgeBaseError,
    ModelNotFoundError,
    QuestionError,
    ShapeError,
)
from ragweave.training.lora import add_adapter
from tests.support.encoders import load_tiny_encoder, save_tiny_encoder
from tests.support.pipelines import build_knowledge_base, save_rag_model

QUESTIONS = ["Where is Lima?", "What is the capital of Kenya?", "Is Chile long?"]


@pytest.fixture(scope="module")
def knowledge_base(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_path: Path) -> Path:
    return build_knowledge_base(tmp_path_factory.mktemp("base"), tiny_encoder_path)


@pytest.fixture(scope="module", params=[("token", "bart"), ("sequence", "bart"), ("token", "llama")], ids=str)
def pipeline(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_encoder_path: Path,
    knowledge_base: Path,
) -> RagPipeline:
    folder = save_rag_model(tmp_path_factory.mktemp("model"), tiny_encoder_path, *request.param)
    return RagPipeline.from_pretrained(folder, knowledge_base=knowledge_base, dtype="float32")


def test_one_question_gives_one_answer(pipeline: RagPipeline):
    answer = pipeline("Where is Lima?", max_new_tokens=6)
    assert answer.question == "Where is Lima?"
    assert len(answer.passages) == 2
    assert sum(passage.posterior for passage in answer.passages) == pytest.approx(1, abs=1e-5)
    assert json.loads(json.dumps(answer.to_dict()))["passages"][0]["source"].endswith(".txt")


def test_score_is_the_log_likelihood_of_the_answer(pipeline: RagPipeline):
    answer = pipeline("Where is Lima?", max_new_tokens=6, n_docs=3)
    vectors = pipeline.encoder.encode(["Where is Lima?"])
    embeds, _, docs = pipeline.retriever.retrieve(vectors, 3)
    ids, mask = pipeline.retriever.postprocess_docs(docs, ["Where is Lima?"], None, 3, return_tensors="pt")
    scores = pipeline.model.rag.score_passages(torch.from_numpy(vectors), torch.from_numpy(embeds))
    given = {"context_input_ids": ids, "context_attention_mask": mask, "doc_scores": scores}
    sequence = pipeline.model.generate(**given, max_new_tokens=6)
    with torch.no_grad():
        loss = pipeline.model(**given, labels=sequence[:, 1:], decoder_input_ids=sequence[:, :-1]).loss
    assert answer.score == pytest.approx(-loss.item(), abs=1e-4)
    found = sorted(passage.doc_score for passage in answer.passages)
    assert found == pytest.approx(sorted(scores[0].tolist()), abs=1e-5)


def test_many_questions_keep_their_order_and_answers(pipeline: RagPipeline):
    together = pipeline(QUESTIONS, max_new_tokens=5, num_beams=2, batch_size=2)
    alone = [pipeline(question, max_new_tokens=5, num_beams=2) for question in QUESTIONS]
    assert [answer.question for answer in together] == QUESTIONS
    assert [answer.answer for answer in together] == [answer.answer for answer in alone]
    assert [a.score for a in together] == pytest.approx([a.score for a in alone], abs=1e-4)


@pytest.mark.parametrize("extractive", [False, True])
def test_preparing_ahead_changes_nothing(pipeline: RagPipeline, extractive: bool):
    options = {"max_new_tokens": 5, "batch_size": 1, "extractive": extractive}
    expected, found = (pipeline(QUESTIONS * 2, prefetch=flag, **options) for flag in (False, True))
    assert [a.answer for a in found] == [a.answer for a in expected]
    assert [a.score for a in found] == pytest.approx([a.score for a in expected], abs=1e-4)
    assert pipeline([], prefetch=True) == []


def test_the_next_batch_is_prepared_while_one_is_answered(
    pipeline: RagPipeline, monkeypatch: pytest.MonkeyPatch
):
    prepared = threading.Semaphore(0)
    genuine = RagPipeline._prepare

    def spy(self, *arguments, **options):
        found = genuine(self, *arguments, **options)
        prepared.release()
        return found

    monkeypatch.setattr(RagPipeline, "_prepare", spy)
    answers = pipeline.stream(QUESTIONS, batch_size=1, max_new_tokens=2, prefetch=True)
    next(answers)
    assert prepared.acquire(timeout=60)
    assert prepared.acquire(timeout=60)  # the second batch, though nobody has asked for it
    assert len(list(answers)) == 2


def test_errors_of_preparing_ahead_arrive(pipeline: RagPipeline, monkeypatch: pytest.MonkeyPatch):
    def broken(*_, **__):
        raise KnowledgeBaseError("the disk is gone")

    monkeypatch.setattr(pipeline, "retrieve", broken)
    with pytest.raises(KnowledgeBaseError, match="the disk is gone"):
        pipeline(QUESTIONS, prefetch=True)
    assert not any(thread.name.startswith("ragweave-prefetch") for thread in threading.enumerate())


def test_where_narrows_the_search(pipeline: RagPipeline):
    answers = pipeline(QUESTIONS, max_new_tokens=2, where="document_id in ('kenya.txt', 'chile.txt')")
    assert {one.id for answer in answers for one in answer.passages} == {"kenya.txt#0", "chile.txt#0"}
    with pytest.raises(ConfigurationError, match="No passage has the column year"):
        pipeline("Where is Lima?", where="year > 1")


def test_without_a_passage_the_documents_do_not_say(pipeline: RagPipeline):
    answer, usual = pipeline("Where is Lima?", where="line > 9"), pipeline("Where is Lima?", max_new_tokens=2)
    assert (answer.answer, answer.answered, answer.confidence) == ("The documents do not say.", False, 0)
    assert answer.passages == () and usual.passages
    result = pipeline.retrieve(QUESTIONS, n_docs=2)
    mixed = replace(result, rows=result.rows.copy(), scores=result.scores.copy())
    mixed.rows[1], mixed.scores[1] = -1, -np.inf
    answers = pipeline(QUESTIONS, max_new_tokens=2, retrieved=mixed, min_confidence=0)
    assert [answer.answered for answer in answers] == [True, False, True]


def test_int8_answers(knowledge_base: Path, tmp_path: Path, tiny_encoder_path: Path):
    folder = save_rag_model(tmp_path, tiny_encoder_path, "token", "llama")
    small = RagPipeline.from_pretrained(folder, knowledge_base=knowledge_base, dtype="int8")
    assert small("Where is Lima?", max_new_tokens=4).passages
    assert "DynamicQuantizedLinear" in repr(small.model.generator)
    assert "DynamicQuantizedLinear" not in repr(small.model.question_encoder)


def test_progress_hears_every_question(pipeline: RagPipeline):
    heard: list[int] = []
    pipeline(QUESTIONS, max_new_tokens=2, batch_size=2, progress=heard.append)
    assert heard == [2, 1]


def test_more_passages_than_there_are(pipeline: RagPipeline):
    assert len(pipeline("Where is Lima?", n_docs=50, max_new_tokens=3).passages) == 3


def test_extractive_answers_stand_in_a_passage(pipeline: RagPipeline):
    answers = pipeline(QUESTIONS, extractive=True, max_new_tokens=8, num_beams=2)
    assert len(answers) == len(QUESTIONS)
    for answer in answers:
        assert answer.answer
        assert any(answer.answer in f"{passage.title}\n{passage.text}" for passage in answer.passages)


def test_a_saved_model_says_whether_answers_are_extractive(
    tmp_path: Path, pipeline: RagPipeline, knowledge_base: Path
):
    plain = pipeline(QUESTIONS, max_new_tokens=8)
    held = pipeline(QUESTIONS, max_new_tokens=8, extractive=True)
    assert [answer.answer for answer in plain] != [answer.answer for answer in held]
    model = pipeline.model.__class__.from_pretrained(pipeline.model.config.name_or_path)
    model.config.extractive = True
    model.save_pretrained(tmp_path)
    retriever = pipeline.retriever
    RagTokenizer(retriever.question_encoder_tokenizer, retriever.generator_tokenizer).save_pretrained(
        tmp_path
    )
    again = RagPipeline.from_pretrained(tmp_path, knowledge_base=knowledge_base, dtype="float32")
    assert [answer.answer for answer in again(QUESTIONS, max_new_tokens=8)] == [
        answer.answer for answer in held
    ]
    assert not RagPipeline.from_pretrained(tmp_path, knowledge_base=None).extractive


@pytest.mark.parametrize("question", ["", "  \n"])
def test_empty_questions_are_refused(pipeline: RagPipeline, question: str):
    with pytest.raises(QuestionError, match="empty"):
        pipeline(question)


def test_questions_longer_than_the_encoder_reads_are_refused(pipeline: RagPipeline):
    with pytest.raises(QuestionError, match="the encoder reads"):
        pipeline("Lima " * 200)


@pytest.mark.parametrize("option", ["n_docs", "num_beams", "max_new_tokens", "batch_size"])
def test_options_below_one_are_refused(pipeline: RagPipeline, option: str):
    with pytest.raises(ConfigurationError, match=option):
        pipeline("Where is Lima?", **{option: 0})


def test_formulation_of_a_saved_model(tmp_path: Path, tiny_encoder_path: Path, knowledge_base: Path):
    folder = save_rag_model(tmp_path / "model", tiny_encoder_path, "sequence")
    as_saved = RagPipeline.from_pretrained(folder, knowledge_base=knowledge_base)
    as_asked = RagPipeline.from_pretrained(folder, knowledge_base=knowledge_base, formulation="token")
    assert type(as_saved.model).__name__ == "RagSequenceForGeneration"
    assert type(as_asked.model).__name__ == "RagTokenForGeneration"


def test_no_such_model(tmp_path: Path, knowledge_base: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ModelNotFoundError, match="embedded"):
        RagPipeline.from_pretrained(tmp_path / "nothing", knowledge_base=knowledge_base)


def without_weights(folder: Path, *parts: str) -> list[str]:
    """Remove the weights whose names have one of these parts in them from a saved model."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    removed = [name for name in weights if any(part in name for part in parts)]
    kept = {name: weight for name, weight in weights.items() if name not in removed}
    save_file(kept, path, metadata={"format": "pt"})
    return removed


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("bart", "generator.model.decoder.layers.1.fc2.weight"),
        ("bart", "generator.model.shared.weight"),  # the head has this one's values
        ("t5", "generator.decoder.block.0.layer.0.SelfAttention.q.weight"),
        ("llama", "generator.lm_head.weight"),
        ("gpt2", "question_encoder.encoder.layer.0.output.dense.weight"),
    ],
)
def test_a_model_that_lacks_a_weight_is_refused(
    tmp_path: Path, tiny_encoder_path: Path, kind: str, part: str
):
    folder = save_rag_model(tmp_path, tiny_encoder_path, "token", kind)
    pooler = without_weights(folder, "question_encoder.pooler")
    assert len(pooler) == 2
    # Weights that are tied are in the files once, and nothing reads the pooler's here.
    RagPipeline.from_pretrained(folder, knowledge_base=None)
    assert without_weights(folder, part) == [f"rag.{part}"]
    with pytest.raises(
        ModelNotFoundError, match=f"lack .* of a RAG model.*'rag.{part}': save the model again"
    ):
        RagPipeline.from_pretrained(folder, knowledge_base=None)


@pytest.mark.parametrize("kind", ["bart", "llama", "gpt2"])
def test_a_checkpoint_with_an_adapter_beside_its_layers_is_refused(
    tmp_path: Path, tiny_encoder_path: Path, kind: str
):
    folder = save_rag_model(tmp_path, tiny_encoder_path, "token", kind)
    model = RagTokenForGeneration.from_pretrained(folder)
    add_adapter(model.generator, rank=2)
    model.save_pretrained(folder)
    with pytest.raises(
        ModelNotFoundError, match=r"lack .* of a RAG model.*'rag\.generator\..*weight'.*--resume"
    ):
        RagPipeline.from_pretrained(folder, knowledge_base=None)


def test_unknown_words_are_refused(knowledge_base: Path):
    with pytest.raises(ConfigurationError, match="choose one of: token, sequence, concat, pced"):
        RagPipeline.from_pretrained("embedded", knowledge_base=knowledge_base, formulation="both")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="bfloat16"):
        RagPipeline.from_pretrained("embedded", knowledge_base=knowledge_base, dtype="half")  # type: ignore[arg-type]


def test_no_such_knowledge_base(tmp_path: Path):
    with pytest.raises(KnowledgeBaseError, match="ragweave index"):
        RagPipeline.from_pretrained("embedded", knowledge_base=tmp_path / "kb")


def test_knowledge_base_of_another_encoder(tmp_path: Path, knowledge_base: Path):
    other = load_tiny_encoder(save_tiny_encoder(tmp_path / "other", seed=1))
    with pytest.raises(EncoderMismatchError):
        KnowledgeBase.open(knowledge_base, encoder=other)
    with pytest.raises(EncoderMismatchError):
        RagPipeline.from_pretrained("embedded", knowledge_base=knowledge_base)


def test_a_knowledge_base_of_another_passage_encoder_is_refused(
    tmp_path: Path, tiny_encoder_path: Path, knowledge_base: Path
):
    folder = save_rag_model(tmp_path / "model", tiny_encoder_path)
    # Another passage encoder than the question encoder's; its vectors are of the same size.
    own = build_knowledge_base(tmp_path, save_tiny_encoder(tmp_path / "passages", seed=1))
    assert RagPipeline.from_pretrained(folder, knowledge_base=own)  # the model does not say
    config = RagConfig.from_pretrained(folder)
    config.passage_encoder_fingerprint = KnowledgeBase.open(own).manifest.encoder.fingerprint
    config.save_pretrained(folder)
    assert RagPipeline.from_pretrained(folder, knowledge_base=own)(
        "Where is Lima?", max_new_tokens=2
    ).passages
    assert RagPipeline.from_pretrained(folder, knowledge_base=None)
    with pytest.raises(EncoderMismatchError, match=r"embed it again with this model.s passage encoder"):
        RagPipeline.from_pretrained(folder, knowledge_base=knowledge_base)


def test_a_new_version_of_the_knowledge_base_is_picked_up_when_asked_for(
    tmp_path: Path, tiny_encoder_path: Path
):
    from ragweave.encoders.text_encoder import TextEncoder

    output = build_knowledge_base(tmp_path, tiny_encoder_path)
    folder = save_rag_model(tmp_path / "model", tiny_encoder_path, "token", "bart")
    pipeline = RagPipeline.from_pretrained(folder, knowledge_base=output, dtype="float32")
    question = "Where is the lighthouse of ulm?"
    before = pipeline(question, n_docs=1, max_new_tokens=3)
    assert not pipeline.refresh()
    (tmp_path / "lighthouse.txt").write_text(question)
    base = KnowledgeBase.open(output)
    base.add([tmp_path / "lighthouse.txt"], encoder=TextEncoder.from_pretrained(tiny_encoder_path))
    assert pipeline(question, n_docs=1, max_new_tokens=3) == before
    assert pipeline.refresh()
    after = pipeline(question, n_docs=1, max_new_tokens=3)
    assert after.passages[0].id == "lighthouse.txt#0" != before.passages[0].id
    assert not pipeline.refresh()


@pytest.fixture
def changing(tmp_path: Path, tiny_encoder_path: Path) -> RagPipeline:
    """A pipeline over a knowledge base that a test may change."""
    output = build_knowledge_base(tmp_path, tiny_encoder_path)
    folder = save_rag_model(tmp_path / "model", tiny_encoder_path, "token", "bart")
    return RagPipeline.from_pretrained(folder, knowledge_base=output, dtype="float32")


def test_a_question_is_answered_from_the_version_that_it_was_searched_in(
    changing: RagPipeline, monkeypatch: pytest.MonkeyPatch
):
    options = {"n_docs": 2, "max_new_tokens": 3}
    before = changing("Where is Lima?", **options)
    index, refreshed = type(changing.retriever.index), []
    search = index.get_hits

    def search_and_change(self, *arguments, **more):
        hits = search(self, *arguments, **more)
        if not refreshed:
            self.base.delete(ids=[before.passages[0].id]).compact(keep=0)
            refreshed.append(changing.refresh())
        return hits

    monkeypatch.setattr(index, "get_hits", search_and_change)
    assert changing("Where is Lima?", **options) == before
    assert refreshed == [True]
    after = changing("Where is Lima?", **options)
    assert before.passages[0].id not in {passage.id for passage in after.passages}


def test_questions_during_changes_are_all_answered(changing: RagPipeline):
    """A thread swaps two versions all the time; each answer is that of one of them, and both are answered from."""

    def ask():
        answer = changing("Where is Lima?", n_docs=2, max_new_tokens=2)
        return answer.answer, [passage.id for passage in answer.passages]

    full = changing.knowledge_base
    expected = [ask()]
    changed = full.delete(ids=[expected[0][1][0]])
    assert changing.refresh()
    expected.append(ask())
    stop, refreshed, failures = threading.Event(), [], []

    def swap_versions() -> None:
        base = changed
        try:
            while not stop.is_set():
                base = base.swap((full if base.version == changed.version else changed).version)
                refreshed.append(changing.refresh())
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=swap_versions)
    thread.start()
    seen = [0, 0]
    try:
        while min(seen) < 5 and sum(seen) < 1000 and not failures:
            seen[expected.index(ask())] += 1
    finally:
        stop.set()
        thread.join()
    assert not failures
    assert min(seen) >= 5
    assert refreshed
    assert all(refreshed)


def test_passages_retrieved_earlier_give_the_same_answers(pipeline: RagPipeline):
    retrieved = pipeline.text_retriever.retrieve(QUESTIONS, 3)
    base = pipeline.knowledge_base
    assert [doc["title"][0] for doc in retrieved.docs] == [
        base.passage(row).title for row in retrieved.rows[:, 0]
    ]
    assert pipeline(QUESTIONS, retrieved=retrieved, n_docs=2, max_new_tokens=4) == pipeline(
        QUESTIONS, n_docs=2, max_new_tokens=4
    )
    with pytest.raises(ShapeError, match="retrieved holds 3 questions, expected 1"):
        pipeline(QUESTIONS[:1], retrieved=retrieved)


def test_answers_from_passages_that_were_not_searched_for(pipeline: RagPipeline):
    base, retriever = pipeline.knowledge_base, pipeline.text_retriever
    row = base.row_of("kenya.txt")[0]
    hits = retriever.index.hits_for_rows([[row], [row, 1 - row]], 2)
    one, two = pipeline(QUESTIONS[:2], retrieved=retriever.score(QUESTIONS[:2], hits), max_new_tokens=4)
    assert [passage.id for passage in one.passages] == ["kenya.txt#0"]
    assert {passage.id for passage in two.passages} == {base.passage(row).id, base.passage(1 - row).id}


@pytest.mark.parametrize("formulation", ["token", "sequence"])
def test_closed_book_is_the_generator_with_an_empty_passage(
    formulation: str, tmp_path: Path, tiny_encoder_path: Path
):
    folder = save_rag_model(tmp_path, tiny_encoder_path, formulation)
    closed = RagPipeline.from_pretrained(folder, knowledge_base=None, dtype="float32")
    answer = closed("Where is Lima?", max_new_tokens=5)
    context = closed.retriever.generator_tokenizer(" / // Where is Lima?", return_tensors="pt")
    alone = closed.model.generator.generate(
        **{name: context[name] for name in ("input_ids", "attention_mask")}, max_new_tokens=5, num_beams=1
    )
    expected = closed.retriever.generator_tokenizer.batch_decode(alone, skip_special_tokens=True)[0].strip()
    assert answer.answer == expected
    with pytest.raises(ConfigurationError, match="no knowledge base"):
        _ = closed.knowledge_base
