"""Passages read once: the same numbers as whole contexts, within the budget, and whatever else generates."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragweave import RagPipeline
from ragweave.errors import ConfigurationError
from ragweave.modeling.passage_cache import PassageCache, PassageReuse, default_budget, parse_size
from ragweave.outputs import RetrievedContexts
from ragweave.pipeline.loading import passage_cache_sizes
from ragweave.pipeline.streaming import stream_answer
from tests.support.pipelines import build_knowledge_base, save_rag_model

QUESTIONS = ["Where is Lima?", "What is the capital of Kenya, and what is its coast?", "Is Chile long?"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_path: Path) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    build_knowledge_base(folder, tiny_encoder_path)
    return folder


def load(folder: Path, encoder: Path, formulation: str, kind: str, size: int | str) -> RagPipeline:
    model = folder / f"{formulation}-{kind}"
    if not model.exists():
        save_rag_model(model, encoder, formulation, kind)
    return RagPipeline.from_pretrained(
        model, knowledge_base=folder / "kb", dtype="float32", passage_cache=size
    )


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3"])
@pytest.mark.parametrize("formulation", ["token", "sequence"])
def test_answers_from_cached_passages_are_those_of_whole_contexts(
    folder: Path, tiny_encoder_path: Path, formulation: str, kind: str
):
    pipeline = load(folder, tiny_encoder_path, formulation, kind, "1GiB")
    whole = whole_contexts(load(folder, tiny_encoder_path, formulation, kind, 0))
    cache = pipeline.passage_cache
    assert cache is not None and whole.passage_cache is None
    for options in ({}, {}, {"num_beams": 3}, {"n_docs": 3, "extractive": True}):
        answers = pipeline(QUESTIONS, max_new_tokens=6, **options)
        for answer, expected in zip(answers, whole(QUESTIONS, max_new_tokens=6, **options), strict=True):
            assert answer.answer == expected.answer
            assert answer.score == pytest.approx(expected.score, abs=1e-4)
            for passage, other in zip(answer.passages, expected.passages, strict=True):
                assert passage.posterior == pytest.approx(other.posterior, abs=1e-4)
    assert len(cache) == cache.misses <= 3  # each was read once, for all questions and decodings
    assert cache.hits > 0


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_states_of_every_context_are_the_same(folder: Path, tiny_encoder_path: Path, kind: str):
    """Token by token: logits after contexts that were read apart, of unlike lengths, with and without a cache."""
    pipeline = load(folder, tiny_encoder_path, "token", kind, 0)
    found = pipeline.retrieve(QUESTIONS, n_docs=3)
    ids, mask = pipeline.retriever.postprocess_docs(
        found.docs, QUESTIONS, None, 3, return_tensors="pt", padding="longest"
    )
    lengths = pipeline.retriever.passage_lengths(ids, mask, QUESTIONS)
    assert all(lengths) and len(set(lengths)) > 1
    contexts = RetrievedContexts(ids, mask, torch.from_numpy(found.scores))
    decoder_input = torch.tensor([[0, 5, 9], [0, 7, 7], [0, 11, 3]])
    cache = PassageCache(10**9)
    results = []
    reuses = [None, PassageReuse(lengths), PassageReuse(lengths, cache), PassageReuse(lengths, cache)]
    reuses.append(PassageReuse([0, *lengths[1:]], cache))  # one of them is unknown
    with torch.inference_mode():
        for passages in reuses:
            encoded = pipeline.model.rag.encode_contexts(contexts, reuse=True, passages=passages)
            output = pipeline.model(
                encoder_outputs=encoded, doc_scores=contexts.doc_scores, decoder_input_ids=decoder_input
            )
            results.append(output.logits)
    for logits in results[1:]:
        torch.testing.assert_close(logits, results[0], rtol=1e-4, atol=1e-4)


def test_a_passage_that_several_questions_retrieve_is_read_once(folder: Path, tiny_encoder_path: Path):
    pipeline = load(folder, tiny_encoder_path, "token", "llama", "1GiB")
    read = []
    model = pipeline.model.generator.base_model
    hook = model.register_forward_pre_hook(
        lambda _, __, kwargs: read.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    pipeline(QUESTIONS, n_docs=3, max_new_tokens=1)
    hook.remove()
    assert sum(read[:-2]) <= 3 + 9  # three passages, and nine contexts' questions


@pytest.mark.parametrize("way", ["a step", "other weights"])
def test_changed_weights_are_read_anew(folder: Path, tiny_encoder_path: Path, way: str):
    pipeline = load(folder, tiny_encoder_path, "token", "llama", "1GiB")
    pipeline(QUESTIONS, max_new_tokens=6)
    generator = pipeline.model.generator
    with torch.no_grad():
        for weight in generator.parameters():
            if way == "a step":
                weight.add_(torch.linspace(-0.3, 0.3, weight.numel()).view_as(weight))
            else:
                weight.data = weight + torch.linspace(-0.3, 0.3, weight.numel()).view_as(weight)
    changed = pipeline(QUESTIONS, max_new_tokens=6)
    assert pipeline.passage_cache is not None
    pipeline.passage_cache.clear()
    for answer, expected in zip(changed, pipeline(QUESTIONS, max_new_tokens=6), strict=True):
        assert answer.answer == expected.answer
        assert answer.score == pytest.approx(expected.score, abs=1e-4)


def whole_contexts(pipeline: RagPipeline) -> RagPipeline:
    """Make a pipeline read its contexts whole, as it does where it does not know the passages."""
    pipeline.retriever.passage_lengths = lambda ids, *_: [0] * len(ids)  # type: ignore[method-assign]
    return pipeline


SAMPLES = {"do_sample": True, "top_k": 0}
DECODINGS: dict[str, list[dict]] = {
    "sequence": [{"decoding": "fast"}, {"decoding": "fast", "num_beams": 3}, SAMPLES],
    "token": [SAMPLES, {**SAMPLES, "num_beams": 2}, {"extractive": True, "n_docs": 4, "batch_size": 3}],
}


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("formulation", DECODINGS)
def test_every_decoding_chooses_the_tokens_of_whole_contexts(
    folder: Path, tiny_encoder_path: Path, formulation: str, kind: str
):
    cached = load(folder, tiny_encoder_path, formulation, kind, "1GiB")
    whole = whole_contexts(load(folder, tiny_encoder_path, formulation, kind, 0))
    assert cached.passage_cache is not None
    for options in DECODINGS[formulation]:
        cached.passage_cache.clear()
        hits, answers = cached.passage_cache.hits, []
        for pipeline in (whole, cached, cached):
            torch.manual_seed(3)
            answers.append(pipeline(QUESTIONS, max_new_tokens=6, **options))
        assert cached.passage_cache.hits > hits
        for expected, *others in zip(*answers, strict=True):
            for answer in others:
                assert [token.text for token in answer.tokens] == [token.text for token in expected.tokens]
                assert answer.score == pytest.approx(expected.score, abs=1e-4)


def test_streamed_pieces_are_those_of_whole_contexts(folder: Path, tiny_encoder_path: Path):
    cached = load(folder, tiny_encoder_path, "token", "llama", "1GiB")
    whole = whole_contexts(load(folder, tiny_encoder_path, "token", "llama", 0))
    for options in ({}, {"extractive": True}):
        expected = [*stream_answer(whole, QUESTIONS[0], max_new_tokens=6, **options)]
        for _ in range(2):
            pieces = [*stream_answer(cached, QUESTIONS[0], max_new_tokens=6, **options)]
            assert pieces[:-1] == expected[:-1]
            assert pieces[-1].answer == expected[-1].answer
    assert cached.passage_cache is not None and cached.passage_cache.hits > 0


@pytest.mark.parametrize("kind", ["mistral", "gemma3"])
def test_sliding_windows_are_read_whole(folder: Path, tiny_encoder_path: Path, kind: str):
    """The window of 4 tokens is shorter than passages and questions."""
    pipeline = load(folder, tiny_encoder_path, "token", kind, "1GiB")
    whole = whole_contexts(load(folder, tiny_encoder_path, "token", kind, 0))
    for _ in range(2):
        for answer, expected in zip(
            pipeline(QUESTIONS, max_new_tokens=6), whole(QUESTIONS, max_new_tokens=6), strict=True
        ):
            assert answer.answer == expected.answer
    assert pipeline.passage_cache is not None
    assert pipeline.passage_cache.hits == pipeline.passage_cache.misses == 0


def test_a_tier_of_the_hosts_memory_gives_the_same_answers(folder: Path, tiny_encoder_path: Path):
    """On a processor both tiers have the same memory, and passages move between them all the same."""
    pipeline = load(folder, tiny_encoder_path, "token", "llama", "1GiB")
    expected = pipeline(QUESTIONS, n_docs=3, max_new_tokens=6)
    cache = pipeline.passage_cache
    assert cache is not None
    budget = cache.bytes // len(cache) * 3 // 2  # room for one
    host = PassageCache(2**20)
    pipeline.passage_cache = cache = PassageCache(budget, host=host)
    for _ in range(3):
        for answer, other in zip(pipeline(QUESTIONS, n_docs=3, max_new_tokens=6), expected, strict=True):
            assert answer.answer == other.answer
            assert answer.score == pytest.approx(other.score, abs=1e-4)
        assert 0 < cache.bytes <= cache.budget
    assert cache.misses == 3  # each passage was read once
    assert host.hits > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_an_accelerators_cache_evicts_to_pinned_memory(folder: Path, tiny_encoder_path: Path):
    load(folder, tiny_encoder_path, "token", "llama", 0)  # saves the model
    options = {"knowledge_base": folder / "kb", "dtype": "float32", "device": "cuda"}
    pipeline = RagPipeline.from_pretrained(folder / "token-llama", passage_cache="12kB+1MiB", **options)
    whole = whole_contexts(RagPipeline.from_pretrained(folder / "token-llama", passage_cache=0, **options))
    cache = pipeline.passage_cache
    assert cache is not None and cache.host is not None
    assert (cache.budget, cache.host.budget) == (12_000, 2**20)
    for _ in range(3):
        for answer, expected in zip(
            pipeline(QUESTIONS, max_new_tokens=6), whole(QUESTIONS, max_new_tokens=6), strict=True
        ):
            assert answer.answer == expected.answer
    assert cache.host.hits > 0
    for key in list(cache.host._states):
        states = cache.host.get(key)
        assert states is not None and states.is_pinned()


def test_generators_that_read_otherwise_go_without(folder: Path, tiny_encoder_path: Path):
    assert load(folder, tiny_encoder_path, "token", "bart", "1GiB").passage_cache is None


def states(tokens: int) -> torch.Tensor:
    return torch.zeros(2, 2, 1, tokens, 4)  # 64 bytes a token


def test_the_least_used_passage_goes_first():
    cache = PassageCache(64 * 10)
    for key in (b"a", b"b"):
        cache.put(key, states(4))
    assert cache.get(b"a") is not None
    cache.put(b"c", states(4))
    assert [cache.get(key) is not None for key in (b"a", b"b", b"c")] == [True, False, True]
    assert (cache.bytes, len(cache), cache.hits, cache.misses) == (64 * 8, 2, 3, 1)
    assert cache.hit_rate == 0.75
    cache.put(b"d", states(11))  # larger than all there is
    assert cache.get(b"d") is None and len(cache) == 2
    cache.clear()
    assert (cache.bytes, len(cache)) == (0, 0)


def test_old_fame_fades():
    cache = PassageCache(64 * 4)
    cache.put(b"old", states(2))
    for _ in range(3):
        cache.get(b"old")
    for number in range(12):
        cache.put(bytes([number]), states(2))
        cache.get(bytes([number]))
    assert cache.get(b"old") is None


def test_what_is_evicted_moves_to_the_tier_below_and_back():
    host = PassageCache(64 * 8)
    cache = PassageCache(64 * 4, host=host)
    for number, key in enumerate((b"a", b"b", b"c", b"d")):
        cache.put(key, states(4) + number)
    assert (len(cache), len(host)) == (1, 2)  # the first of three evicted ones had to leave the host, too
    found = cache.get(b"b")
    assert found is not None and torch.equal(found, states(4) + 1)
    assert cache.bytes == 64 * 4 and host.bytes == 64 * 8
    assert cache.get(b"a") is None
    assert (cache.hits, cache.misses) == (1, 1)
    cache.clear()
    assert (len(cache), len(host)) == (0, 0)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [(None, (None, None)), (0, (0, None)), ("1GiB", (2**30, None)), ("1 GB+2GiB", (10**9, 2**31))],
)
def test_budgets_of_tiers(text: str | int | None, sizes: tuple):
    assert passage_cache_sizes(text) == sizes


@settings(max_examples=60, deadline=None)
@given(
    budget=st.integers(0, 20),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(1, 6)), max_size=80),
)
def test_a_cache_is_a_bounded_map(budget: int, steps: list[tuple[bool, int, int]]):
    cache, model = PassageCache(64 * budget), {}
    for is_put, name, tokens in steps:
        key = bytes([name])
        if is_put:
            cache.put(key, states(tokens))
            model.setdefault(key, set()).add(tokens)
        else:
            found = cache.get(key)
            assert found is None or found.shape[3] in model[key]
        assert cache.bytes <= 64 * budget
    assert cache.bytes == sum(64 * own.shape[3] for key in model if (own := cache.get(key)) is not None)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        (4096, 4096),
        ("512MiB", 2**29),
        ("1 GB", 10**9),
        ("1.5kib", 1536),
        ("2B", 2),
        ("1 TiB", 2**40),
    ],
)
def test_sizes(text: str | int, size: int):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1", "1 PB", "GB", "1e9"])
def test_what_is_no_size(text: str):
    with pytest.raises(ConfigurationError, match="is not a size"):
        parse_size(text)


def test_the_default_budget_is_a_part_of_the_free_memory():
    assert 0 < default_budget() <= 2**30
    with pytest.raises(ConfigurationError, match="0 or more"):
        PassageCache(-1)
