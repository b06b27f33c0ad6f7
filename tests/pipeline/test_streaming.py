"""Answers while they are being made: the same answers, in pieces, and stopped when nobody listens."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest

from ragweave import Answer, RagPipeline, stream_answer
from ragweave.errors import ConfigurationError, QuestionError
from ragweave.types import ScoredPassage
from tests.support.pipelines import build_knowledge_base, save_rag_model

QUESTIONS = ["Where is Lima?", "What is the capital of Kenya?", "Is Chile long?"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_path: Path) -> Path:
    folder = tmp_path_factory.mktemp("streaming")
    build_knowledge_base(folder, tiny_encoder_path)
    return folder


@pytest.fixture(scope="module", params=[("token", "bart"), ("sequence", "bart"), ("token", "llama")], ids=str)
def pipeline(request: pytest.FixtureRequest, folder: Path, tiny_encoder_path: Path) -> RagPipeline:
    model = save_rag_model(folder / "-".join(request.param), tiny_encoder_path, *request.param)
    return RagPipeline.from_pretrained(model, knowledge_base=folder / "kb", dtype="float32")


class Recorder:
    """A callback that records its calls, and stops questions after a number of texts."""

    def __init__(self, *, most: int | None = None) -> None:
        self.most = most
        self.passages: dict[int, Sequence[ScoredPassage]] = {}
        self.texts: defaultdict[int, list[str]] = defaultdict(list)

    def on_passages(self, position: int, passages: Sequence[ScoredPassage]) -> None:
        assert position not in self.texts
        self.passages[position] = passages

    def on_text(self, position: int, text: str) -> None:
        self.texts[position].append(text)

    def should_stop(self, position: int) -> bool:
        return self.most is not None and len(self.texts[position]) >= self.most


def is_greedy_token(pipeline: RagPipeline) -> bool:
    return type(pipeline.model).__name__ == "RagTokenForGeneration"


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("extractive", [False, True])
def test_a_callback_receives_the_whole_answer(pipeline: RagPipeline, beams: int, extractive: bool):
    recorder = Recorder()
    options = {"max_new_tokens": 8, "num_beams": beams, "extractive": extractive, "batch_size": 2}
    answers = pipeline(QUESTIONS, callback=recorder, **options)
    assert answers == pipeline(QUESTIONS, **options)
    for position, answer in enumerate(answers):
        assert "".join(recorder.texts[position]) == answer.answer
        expected = sorted(answer.passages, key=lambda passage: -passage.prior)
        assert [passage.id for passage in recorder.passages[position]] == [passage.id for passage in expected]
        assert [passage.prior for passage in recorder.passages[position]] == [
            passage.prior for passage in expected
        ]
        if beams > 1 or not is_greedy_token(pipeline):
            assert len(recorder.texts[position]) <= 1


def test_only_greedy_rag_token_streams_token_by_token(pipeline: RagPipeline):
    recorder = Recorder()
    pipeline(QUESTIONS, callback=recorder, max_new_tokens=12)
    most = max(len(texts) for texts in recorder.texts.values())
    assert most > 3 if is_greedy_token(pipeline) else most == 1


def test_pieces_and_then_the_answer(pipeline: RagPipeline):
    *pieces, answer = stream_answer(pipeline, QUESTIONS[0], max_new_tokens=8)
    assert isinstance(answer, Answer)
    assert "".join(pieces) == answer.answer
    assert answer == pipeline(QUESTIONS[0], max_new_tokens=8)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_stopped_question_ends_and_the_others_go_on(pipeline: RagPipeline, beams: int):
    class FirstStopped(Recorder):
        def should_stop(self, position: int) -> bool:
            return position == 0

    options = {
        "max_new_tokens": 16,
        "num_beams": beams,
        "suppress_tokens": [pipeline.model.rag.special_tokens.eos],
    }
    stopped = pipeline(QUESTIONS, callback=FirstStopped(), **options)
    whole = pipeline(QUESTIONS, **options)
    assert len(stopped[0].tokens) < len(whole[0].tokens)
    assert [passage.answer for passage in stopped[1:]] == [passage.answer for passage in whole[1:]]


def test_closing_the_iterator_cancels_the_generation(pipeline: RagPipeline):
    steps = []
    processor = lambda ids, scores: (steps.append(len(ids)), scores)[1]  # noqa: E731
    pieces = stream_answer(
        pipeline,
        QUESTIONS[0],
        max_new_tokens=90,
        logits_processor=[processor],
        suppress_tokens=[pipeline.model.rag.special_tokens.eos],
    )
    next(pieces)
    pieces.close()
    assert not any(thread.name == "ragweave-stream" for thread in threading.enumerate())
    if is_greedy_token(pipeline):
        assert len(steps) < 90


def test_errors_arrive(pipeline: RagPipeline):
    with pytest.raises(QuestionError, match="empty"):
        next(stream_answer(pipeline, " "))
    with pytest.raises(ConfigurationError, match="num_beams"):
        list(stream_answer(pipeline, QUESTIONS[0], num_beams=0))


def test_another_formulation_of_the_same_networks(pipeline: RagPipeline, folder: Path):
    own = "token" if is_greedy_token(pipeline) else "sequence"
    other = "sequence" if own == "token" else "token"
    assert pipeline.with_formulation(own) is pipeline
    twin = pipeline.with_formulation(other)
    assert twin.model.generator is pipeline.model.generator
    assert twin.retriever is pipeline.retriever
    saved = folder / f"again-{own}"
    pipeline.model.save_pretrained(saved)
    from ragweave import RagTokenizer

    RagTokenizer(pipeline.encoder.tokenizer, pipeline.retriever.generator_tokenizer).save_pretrained(saved)
    loaded = RagPipeline.from_pretrained(
        saved, knowledge_base=folder / "kb", formulation=other, dtype="float32"
    )
    for question in QUESTIONS:
        expected, found = (one(question, max_new_tokens=6) for one in (loaded, twin))
        assert found.answer == expected.answer
        assert found.score == pytest.approx(expected.score, abs=1e-4)
    with pytest.raises(ConfigurationError, match="choose one of: token, sequence, concat, pced"):
        pipeline.with_formulation("both")


def test_passages_without_an_answer(pipeline: RagPipeline):
    ranked = pipeline.retrieve(QUESTIONS, n_docs=2).ranked_passages()
    for passages, answer in zip(ranked, pipeline(QUESTIONS, n_docs=2, max_new_tokens=2), strict=True):
        expected = sorted(answer.passages, key=lambda passage: -passage.prior)
        assert [passage.id for passage in passages] == [passage.id for passage in expected]
        scores = [passage.doc_score for passage in expected]
        assert [passage.doc_score for passage in passages] == pytest.approx(scores)
    assert len(pipeline.retrieve([])) == 0
    with pytest.raises(QuestionError):
        pipeline.retrieve([""])
    with pytest.raises(ConfigurationError, match="n_docs"):
        pipeline.retrieve(QUESTIONS, n_docs=0)
