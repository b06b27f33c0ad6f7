"""A generator behind an OpenAI-compatible server: the sum over passages, and every way in which a server fails."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.responses import JSONResponse, Response, StreamingResponse
from typer.testing import CliRunner

from ragweave import KnowledgeBase
from ragweave.cli import app
from ragweave.errors import ConfigurationError, GeneratorError, QuestionError
from ragweave.pipeline.chat_client import ChatClient, Completion, read_key
from ragweave.pipeline.conversation import REWRITE
from ragweave.pipeline.endpoint_pipeline import EndpointPipeline
from ragweave.serving.settings import Batching, ServingSettings
from ragweave.types import ScoredPassage
from tests.support.endpoint import Endpoint, completion, endpoint, prompt_logprobs, text_completion
from tests.support.pipelines import build_knowledge_base
from tests.support.serving import served

KEY = "sk-a-key-for-tests-only"
QUESTION = "What is the capital?"
# What the server answers from each passage: two agree, and one of their answers has white space around it.
REPLIES = {
    "Peru": [("Li", -0.5), ("ma", -0.25)],
    "Kenya": [("Nairobi", -0.125)],
    "Chile": [(" Li", -2.0), ("ma", -1.0), ("\n", -0.0625)],
}


NOT_FINITE = (
    '{"choices": [{"message": {"content": "a"}, "logprobs": {"content": [{"token": "a", "logprob": NaN}]}}]}'
)


def of_passage(message: str) -> list[tuple[str, float]]:
    return next(tokens for country, tokens in REPLIES.items() if country in message)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_path: Path) -> KnowledgeBase:
    folder = tmp_path_factory.mktemp("endpoint")
    return KnowledgeBase.open(build_knowledge_base(folder, tiny_encoder_path, named=False))


@pytest.fixture
def server() -> Iterator[Endpoint]:
    with endpoint(of_passage) as running:
        yield running


def pipeline_of(server: Endpoint, base: KnowledgeBase, **options: object) -> EndpointPipeline:
    client = ChatClient(server.url, "tiny", **{"backoff": 0.0, "timeout": 20.0, **options})
    return EndpointPipeline(client, base)


def country(text: str) -> str:
    return next(name for name in REPLIES if name in text)


def test_the_sum_over_passages(server: Endpoint, base: KnowledgeBase):
    answer = pipeline_of(server, base)(QUESTION)
    joint = {
        country(passage.text): passage.prior
        * math.exp(sum(value for _, value in REPLIES[country(passage.text)]))
        for passage in base.search(QUESTION, 3)
    }
    lima, nairobi = joint["Peru"] + joint["Chile"], joint["Kenya"]
    assert answer.answer == ("Lima" if lima > nairobi else "Nairobi")
    assert answer.score == pytest.approx(math.log(max(lima, nairobi)))
    assert answer.confidence == pytest.approx(max(lima, nairobi))
    posteriors = {country(passage.text): passage.posterior for passage in answer.passages}
    agreeing = ("Peru", "Chile") if lima > nairobi else ("Kenya",)
    expected = {name: joint[name] / max(lima, nairobi) if name in agreeing else 0.0 for name in REPLIES}
    assert posteriors == pytest.approx(expected)
    assert sum(posteriors.values()) == pytest.approx(1)
    assert list(posteriors.values()) == sorted(posteriors.values(), reverse=True)
    assert answer.answered and not answer.failed
    # One request for each passage, with what the sum needs.
    assert len(server.bodies) == 3
    for body in server.bodies:
        assert (body["model"], body["temperature"], body["logprobs"], body["max_tokens"]) == (
            "tiny",
            0,
            True,
            32,
        )
        assert body["messages"][-1]["content"].endswith(f"Question: {QUESTION}")


def test_equal_answers_are_merged_and_tokens_keep_their_posteriors(server: Endpoint, base: KnowledgeBase):
    replies = {"Peru": [("Li", -3.0), ("ma", -0.5)], "Kenya": [("Li", -0.5), ("ma", -1.5), ("<end>", -0.25)]}

    def reply(message: str) -> Response:
        return completion(replies["Kenya" if "Kenya" in message else "Peru"], "Lima")

    server.reply = reply
    answer = pipeline_of(server, base)(QUESTION)
    assert answer.answer == "Lima"
    assert answer.tokens == ()  # the requests cut the answer into different tokens
    replies["Kenya"].pop()
    answer = pipeline_of(server, base)(QUESTION)
    assert [token.text for token in answer.tokens] == ["Li", "ma"]
    weights = [
        [
            p.prior * math.exp(sum(v for _, v in replies["Kenya" if "Kenya" in p.text else "Peru"][:t]))
            for t in (1, 2)
        ]
        for p in answer.passages
    ]
    for t, token in enumerate(answer.tokens):
        total = sum(row[t] for row in weights)
        assert token.posteriors == pytest.approx([row[t] / total for row in weights])
    assert answer.score == pytest.approx(math.log(sum(row[1] for row in weights)))


def test_tokens_are_parts_of_characters(server: Endpoint, base: KnowledgeBase):
    def reply(_: str) -> Response:
        scored = [{"token": "?", "logprob": -0.5, "bytes": [byte]} for byte in "é".encode()]
        choice = {"message": {"content": "é"}, "logprobs": {"content": scored}}
        return JSONResponse({"choices": [choice]})

    server.reply = reply
    answer = pipeline_of(server, base)(QUESTION)
    assert (answer.answer, [token.text for token in answer.tokens]) == ("é", ["", "é"])
    assert answer.score == pytest.approx(-1.0)


def test_a_failed_passage_is_named_and_absent(server: Endpoint, base: KnowledgeBase):
    server.reply = lambda message: Response(status_code=400) if "Kenya" in message else of_passage(message)
    answer = pipeline_of(server, base)(QUESTION)
    (kenya,) = [passage for passage in answer.passages if "Kenya" in passage.text]
    assert kenya.posterior == 0 and list(answer.failed) == [kenya.id]
    assert "status 400" in answer.failed[kenya.id]
    joint = [
        p.prior * math.exp(sum(v for _, v in REPLIES[country(p.text)])) for p in answer.passages if p != kenya
    ]
    assert (answer.answer, answer.score) == ("Lima", pytest.approx(math.log(sum(joint))))
    assert len(server.bodies) == 3  # another try would not mend it
    assert json.loads(json.dumps(answer.to_dict()))["failed"] == dict(answer.failed)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_transient_failures_are_tried_again(server: Endpoint, base: KnowledgeBase, status: int):
    seen: set[str] = set()
    lock = threading.Lock()

    def reply(message: str) -> Response | list[tuple[str, float]]:
        with lock:
            first = message not in seen
            seen.add(message)
        return Response(status_code=status, headers={"Retry-After": "0"}) if first else of_passage(message)

    server.reply = reply
    assert not pipeline_of(server, base)(QUESTION).failed
    assert len(server.bodies) == 6


def test_retries_end(server: Endpoint, base: KnowledgeBase):
    server.reply = lambda _: Response(status_code=503)
    with pytest.raises(
        GeneratorError, match=r"There is no answer to .* from any passage.*503.*tried 3 times"
    ):
        pipeline_of(server, base, retries=2)(QUESTION)
    assert len(server.bodies) == 9


def scored(logprobs: object, content: str = "Lima") -> Response:
    choice = {"message": {"content": content}, "logprobs": logprobs}
    return JSONResponse({"choices": [choice]})


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (Response("no JSON"), "is not a completion"),
        (JSONResponse({"choices": []}), "is not a completion"),
        (JSONResponse([]), "is not a completion"),
        (scored(None), "no log-probabilities"),
        (scored({"content": [{"token": "Lima"}]}), "is not a completion"),
        (scored({"content": []}), "no finite probability"),
        (Response(NOT_FINITE), "no finite"),
        (scored({"content": [{"token": " ", "logprob": -1}]}, content=" "), "empty answer"),
        (Response(b" " * (9 * 2**20)), "exceeds"),
        (Response(status_code=307, headers={"Location": "http://127.0.0.1:1/v1"}), "status 307"),
        (JSONResponse({"error": {"message": f"wrong key {KEY}"}}, 401), r"status 401 \(wrong key \*\*\*\)"),
    ],
)  # fmt: skip
def test_bad_responses(server: Endpoint, base: KnowledgeBase, response: Response, words: str):
    server.reply = lambda _: response
    with pytest.raises(GeneratorError, match=words) as error:
        pipeline_of(server, base, key=KEY)(QUESTION)
    assert KEY not in str(error.value)
    assert len(server.bodies) == 3


def test_a_silent_server_times_out(server: Endpoint, base: KnowledgeBase):
    silence = threading.Event()
    server.reply = lambda message: silence.wait(60) and of_passage(message)
    try:
        with pytest.raises(GeneratorError, match="ReadTimeout"):
            pipeline_of(server, base, timeout=0.2, retries=0)(QUESTION)
    finally:
        silence.set()


def test_a_server_that_trickles_times_out(server: Endpoint, base: KnowledgeBase):
    ended = threading.Event()

    def drops() -> Iterator[bytes]:
        while not ended.wait(0.05):
            yield b" "

    server.reply = lambda _: StreamingResponse(drops())
    try:
        with pytest.raises(GeneratorError, match="took longer"):
            pipeline_of(server, base, timeout=0.3, retries=0)(QUESTION)
    finally:
        ended.set()


def test_no_server(base: KnowledgeBase):
    client = ChatClient("http://127.0.0.1:1/v1", "tiny", retries=1, backoff=0.0)
    with pytest.raises(GeneratorError, match="cannot be reached"):
        EndpointPipeline(client, base)(QUESTION)


def test_the_limit_of_requests_counts_every_try(server: Endpoint, base: KnowledgeBase):
    pipeline = pipeline_of(server, base, max_requests=4)
    assert not pipeline(QUESTION).failed
    answer = pipeline("Where is it?")
    assert len(answer.failed) == 2
    assert all("limit of requests" in reason for reason in answer.failed.values())
    with pytest.raises(GeneratorError, match="limit of requests"):
        pipeline(QUESTION)
    assert len(server.bodies) == 4


def test_concurrency_is_bounded(server: Endpoint, base: KnowledgeBase):
    lock, running, most = threading.Lock(), 0, 0
    together = threading.Barrier(2)

    def reply(message: str) -> list[tuple[str, float]]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(60)  # two requests must be under way at once
        with lock:
            running -= 1
        return of_passage(message)

    server.reply = reply
    assert len(pipeline_of(server, base, concurrency=2)([QUESTION, "Where is Lima?"])) == 2
    assert most == 2


def test_answers_below_the_threshold_are_withheld(server: Endpoint, base: KnowledgeBase):
    answer = pipeline_of(server, base)(QUESTION, min_confidence=1.0)
    assert (answer.answered, answer.answer) == (False, "The documents do not say.")
    assert answer.best_guess in ("Lima", "Nairobi")


@pytest.mark.parametrize(
    "options",
    [{"n_docs": 0}, {"num_beams": 2}, {"extractive": True}, {"min_confidence": 2.0}, {"do_sample": True}],
)
def test_wrong_options_of_a_call(server: Endpoint, base: KnowledgeBase, options: dict):
    with pytest.raises(ConfigurationError):
        pipeline_of(server, base)(QUESTION, **options)
    with pytest.raises(QuestionError):
        pipeline_of(server, base)(" ")
    assert server.bodies == []


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8080", "ftp://host/v1", "http://user:secret@host/v1", "http://h/v1?key=secret"]
)
def test_wrong_addresses(url: str):
    with pytest.raises(ConfigurationError) as error:
        ChatClient(url, "tiny")
    assert "secret" not in str(error.value)


def test_keys(server: Endpoint, base: KnowledgeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pipeline_of(server, base)(QUESTION)
    assert "authorization" not in server.headers[-1]
    monkeypatch.setenv("RAGWEAVE_GENERATOR_KEY", KEY)
    pipeline_of(server, base)(QUESTION)
    assert server.headers[-1]["authorization"] == f"Bearer {KEY}"
    file = tmp_path / "key"
    for content in ("", "\n"):
        file.write_text(content)
        with pytest.raises(ConfigurationError, match="is empty"):
            read_key(file)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_key(tmp_path / "missing")
    with pytest.raises(ConfigurationError) as error:
        ChatClient(server.url, "tiny", key="sécret")
    assert "cret" not in str(error.value)


def test_passages_that_were_retrieved_before_and_callbacks(server: Endpoint, base: KnowledgeBase):
    pipeline = pipeline_of(server, base)
    retrieved = pipeline.text_retriever.retrieve([QUESTION], 3)
    heard: list[object] = []

    class Listener:
        def on_passages(self, position: int, passages: Sequence[ScoredPassage]) -> None:
            heard.append([passage.id for passage in passages])

        def on_text(self, position: int, text: str) -> None:
            heard.append(text)

        def should_stop(self, position: int) -> bool:
            return False

    (answer,) = pipeline([QUESTION], retrieved=retrieved, n_docs=1, callback=Listener())
    assert heard == [[answer.passages[0].id], answer.answer]
    assert len(server.bodies) == 1


def test_no_passage_no_request(server: Endpoint, base: KnowledgeBase):
    answer = pipeline_of(server, base)(QUESTION, where="source == 'nowhere'")
    assert (answer.answered, answer.passages, server.bodies) == (False, (), [])
    assert json.loads(json.dumps(answer.to_dict()))["score"] < -700


# log p(y | x, z) of both answers from each passage, whichever it proposes.
SCORES = {
    "Peru": {"Lima": (-0.5, -0.25), "Nairobi": (-4.0,)},
    "Kenya": {"Lima": (-1.0, -1.0), "Nairobi": (-0.125,)},
    "Chile": {"Lima": (-2.0, -1.0), "Nairobi": (-0.75,)},
}
PIECES = {"Lima": (" Li", "ma"), "Nairobi": (" Nairobi",)}


def scoring(prompt: str) -> Response:
    """Continue a prompt, or score the answer at its end, with one more token as servers want to generate one."""
    start, _, answer = prompt.rpartition("Answer:")
    scores = SCORES[country(prompt)]
    if not answer:
        best = max(scores, key=lambda text: sum(scores[text]))
        return text_completion([*zip(PIECES[best], scores[best], strict=True)])
    scored = zip(PIECES[answer.strip()], scores[answer.strip()], strict=True)
    return text_completion([(f"{start}Answer", None), (":", -9.0), *scored, ("\n", -0.5)])


@pytest.mark.parametrize("decoding", ["thorough", "fast", None])
def test_answers_are_scored_under_all_passages(server: Endpoint, base: KnowledgeBase, decoding: str | None):
    server.reply = scoring
    answer = pipeline_of(server, base, api="completions")(QUESTION, decoding=decoding)
    thorough = decoding != "fast"
    joint = {"Lima": {}, "Nairobi": {}}
    for passage in base.search(QUESTION, 3):
        scores = SCORES[country(passage.text)]
        proposed = max(scores, key=lambda text: sum(scores[text]))
        for text in scores if thorough else [proposed]:
            joint[text][passage.id] = passage.prior * math.exp(sum(scores[text]))
    best = max(joint, key=lambda text: sum(joint[text].values()))
    total = sum(joint[best].values())
    assert answer.answer == best and answer.score == pytest.approx(math.log(total))
    posteriors = {passage.id: passage.posterior for passage in answer.passages}
    assert posteriors == pytest.approx({name: joint[best].get(name, 0) / total for name in posteriors})
    assert [token.text for token in answer.tokens] == [piece.strip() for piece in PIECES[best]]
    assert len(server.bodies) == (9 if thorough else 3)
    echoes = [body["prompt"] for body in server.bodies if body.get("echo")]
    assert len(echoes) == (6 if thorough else 0)
    assert all(prompt.endswith((" Lima", " Nairobi")) for prompt in echoes)


def scoring_as_vllm(message: str) -> list[tuple[str, float]] | Response:
    """Answer a chat, or score the answer that is its open end."""
    start, scores_it, answer = message.partition("Answer:")
    scores = SCORES[country(message)]
    if not scores_it:
        answer = max(scores, key=lambda text: sum(scores[text]))
        return [*zip((piece.strip() for piece in PIECES[answer]), scores[answer], strict=True)]
    answer = answer.strip()
    scored = zip((piece.strip() for piece in PIECES[answer]), scores[answer], strict=True)
    return prompt_logprobs([(f"{start}<assistant>", -8.0), ("\n", -9.0), *scored])


@pytest.mark.parametrize("decoding", ["thorough", "fast", None])
def test_vllm_scores_the_end_of_a_chat(server: Endpoint, base: KnowledgeBase, decoding: str | None):
    server.reply = scoring_as_vllm
    answer = pipeline_of(server, base, api="vllm")(QUESTION, decoding=decoding)
    bodies = list(server.bodies)
    server.reply = scoring
    expected = pipeline_of(server, base, api="completions")(QUESTION, decoding=decoding)
    assert (answer.answer, answer.score) == (expected.answer, pytest.approx(expected.score))
    assert [passage.posterior for passage in answer.passages] == pytest.approx(
        [passage.posterior for passage in expected.passages]
    )
    assert [token.text for token in answer.tokens] == [token.text for token in expected.tokens]
    scored = [body for body in bodies if "prompt_logprobs" in body]
    assert len(scored) == (0 if decoding == "fast" else 6)
    for body in scored:
        assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant"]
        assert body["messages"][-1]["content"] in PIECES


def of_prompt(tokens: list[tuple[str, float]]) -> Completion:
    with endpoint(lambda _: prompt_logprobs(tokens)) as server:
        return ChatClient(server.url, "tiny", api="vllm").score("Answer.", "Where?", "La Paz")


def test_the_answer_is_found_at_the_end_of_the_prompt():
    start = [("Paz", -9.0), ("<assistant>", -9.0), ("\n\n", -9.0)]
    whole = of_prompt([*start, ("La", -1.0), (" Paz", -0.5)])
    assert (whole.tokens, whole.log_probs) == (("La", " Paz"), (-1.0, -0.5))
    spaced = of_prompt([*start, (" La", -1.0), (" P", -0.5), ("az", -0.25)])
    assert (spaced.tokens, spaced.log_probs) == (("La", " P", "az"), (-1.0, -0.5, -0.25))
    # SentencePiece decodes single tokens without the spaces before them.
    assert of_prompt([*start, ("La", -1.0), ("Paz", -0.5)]).log_prob == -1.5
    for others in ([*start, ("Lima", -1.0)], [*start, (">La", -1.0), (" Paz", -0.5)], []):
        with pytest.raises(GeneratorError, match="probabilities of a prompt"):
            of_prompt(others)


def test_a_passage_that_cannot_be_scored_is_absent(server: Endpoint, base: KnowledgeBase):
    def reply(prompt: str) -> Response:
        return Response(status_code=400) if "Kenya" in prompt and prompt.endswith("Lima") else scoring(prompt)

    server.reply = reply
    answer = pipeline_of(server, base, api="completions")(QUESTION)
    (kenya,) = [passage for passage in answer.passages if "Kenya" in passage.text]
    assert kenya.posterior == 0 and list(answer.failed) == [kenya.id]


def test_a_server_whose_probabilities_of_prompts_are_others(server: Endpoint, base: KnowledgeBase):
    def shifted(prompt: str) -> Response:
        if not prompt.endswith(" Lima"):
            return scoring(prompt)
        start = prompt.removesuffix(" Lima")
        return text_completion([(start, None), (" Li", -7.0), ("ma", -0.25), (".", -0.5)])

    server.reply = shifted
    with pytest.raises(GeneratorError, match="disagree"):
        pipeline_of(server, base, api="completions")(QUESTION)


def test_a_server_that_repeats_no_prompt(server: Endpoint, base: KnowledgeBase):
    server.reply = lambda prompt: text_completion([(" Lima", -0.5)])
    with pytest.raises(GeneratorError, match="probabilities of a prompt"):
        pipeline_of(server, base, api="completions")(QUESTION)
    with pytest.raises(ConfigurationError, match="Thorough decoding needs"):
        pipeline_of(server, base)(QUESTION, decoding="thorough")


def test_other_formulations(server: Endpoint, base: KnowledgeBase):
    pipeline = pipeline_of(server, base)
    assert pipeline.with_formulation("concat").formulation == "concat"
    with pytest.raises(ConfigurationError, match="'sequence' and 'concat'"):
        pipeline.with_formulation("token")


def test_all_passages_in_one_request(server: Endpoint, base: KnowledgeBase):
    passages = base.search(QUESTION, 3)
    answer = ask(
        base,
        "--generator",
        server.url,
        "--generator-model",
        "tiny",
        "--formulation",
        "concat",
        "--json",
        QUESTION,
    )
    content = json.loads(answer.stdout)
    (body,) = server.bodies
    assert all(passage.text in body["messages"][-1]["content"] for passage in passages)
    assert [passage["posterior"] for passage in content["passages"]] == pytest.approx(
        [passage.prior for passage in passages]
    )
    first = next(tokens for name, tokens in REPLIES.items() if any(name in one.text for one in passages))
    assert content["score"] == pytest.approx(sum(value for _, value in first))


def test_a_follow_up_is_rewritten_by_the_server(server: Endpoint, base: KnowledgeBase):
    def reply(message: str) -> list[tuple[str, float]]:
        return [(" Where is Lima?", -0.5)] if "Follow-up:" in message else of_passage(message)

    server.reply = reply
    conversation = pipeline_of(server, base).chat()
    first = conversation.ask(QUESTION)
    assert conversation.ask("And where is that?").question == "Where is Lima?"
    (body,) = [body for body in server.bodies if "Follow-up:" in body["messages"][-1]["content"]]
    asked = f"User: {QUESTION}\nAnswer: {first.answer}\nFollow-up: And where is that?"
    assert [message["content"] for message in body["messages"]] == [REWRITE, asked]
    server.reply = lambda message: Response(status_code=401)
    with pytest.raises(GeneratorError, match="401"):
        conversation.ask("And why?")


def test_a_follow_up_that_fails_leaves_the_others_of_its_batch(server: Endpoint, base: KnowledgeBase):
    server.reply = lambda text: Response(status_code=401) if "Follow-up:" in text else of_passage(text)
    settings = ServingSettings(batching=Batching(max_batch=2, max_wait=30.0))
    history = [{"question": QUESTION, "answer": "Lima"}]
    bodies = [{"question": QUESTION}, {"question": "And why?", "history": history}]
    with (
        served(pipeline_of(server, base), settings) as running,
        running.client() as client,
        ThreadPoolExecutor(2) as pool,
    ):
        responses = list(pool.map(lambda body: client.post("/v1/answers", json=body), bodies))
    assert [response.status_code for response in responses] == [200, 503]


def test_serve(server: Endpoint, base: KnowledgeBase):
    pipeline = pipeline_of(server, base)
    with served(pipeline) as running, running.client() as client:
        body = client.post("/v1/answers", json={"questions": [QUESTION]}).json()
        (answer,) = body["answers"]
        assert answer["answer"] in ("Lima", "Nairobi")
        assert sum(passage["posterior"] for passage in answer["passages"]) == pytest.approx(1)
        for options in ({"formulation": "token"}, {"num_beams": 2}):
            response = client.post("/v1/answers", json={"questions": [QUESTION], **options})
            assert response.status_code == 422, response.text
        server.reply = lambda _: Response(status_code=401)
        response = client.post("/v1/answers", json={"questions": [QUESTION]})
        assert response.status_code == 503 and "status 401" in response.text
        assert server.url not in response.text


def test_a_question_that_fails_leaves_the_others_of_its_batch(server: Endpoint, base: KnowledgeBase):
    def reply(message: str) -> list[tuple[str, float]] | Response:
        return Response(status_code=401) if "Who?" in message else of_passage(message)

    server.reply = reply
    settings = ServingSettings(batching=Batching(max_batch=3, max_wait=30.0))
    bodies = [{"question": QUESTION}, {"question": "Who?"}, {"question": "Who?", "stream": True}]
    with (
        served(pipeline_of(server, base), settings) as running,
        running.client() as client,
        ThreadPoolExecutor(3) as pool,
    ):
        responses = list(pool.map(lambda body: client.post("/v1/answers", json=body), bodies))
    assert [response.status_code for response in responses] == [200, 503, 200]
    assert responses[0].json()["answers"][0]["answer"] in ("Lima", "Nairobi")
    assert "event: error" in responses[2].text and "status 401" in responses[2].text


def test_callbacks_may_take_the_errors_of_questions(server: Endpoint, base: KnowledgeBase):
    class Callback:
        def __init__(self) -> None:
            self.texts: dict[int, str] = {}
            self.errors: dict[int, GeneratorError] = {}

        def on_passages(self, position: int, passages: Sequence[ScoredPassage]) -> None:
            pass

        def on_text(self, position: int, text: str) -> None:
            self.texts[position] = text

        def on_error(self, position: int, error: GeneratorError) -> None:
            self.errors[position] = error

        def should_stop(self, position: int) -> bool:
            return False

    server.reply = lambda text: Response(status_code=401) if "Who?" in text else of_passage(text)
    callback, pipeline = Callback(), pipeline_of(server, base)
    answers = dict(pipeline.stream(["Who?", QUESTION], callback=callback))
    assert list(answers) == list(callback.texts) == [1]
    assert list(callback.errors) == [0] and "status 401" in str(callback.errors[0])
    with pytest.raises(GeneratorError, match="status 401"):
        pipeline(["Who?", QUESTION])


def test_eval(server: Endpoint, base: KnowledgeBase, tmp_path: Path):
    data = tmp_path / "data.jsonl"
    lines = [{"question": QUESTION, "answers": ["Lima", "Nairobi"]}, {"question": "Who?", "answers": ["No"]}]
    data.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    options = ["--generator", server.url, "--generator-model", "tiny", "--data", str(data), "--json"]
    command = ["eval", "--kb", str(base.path), "--n-docs", "3", *options, "--output", str(tmp_path / "run")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["exact_match"] == 0.5
    assert len(server.bodies) == 6
    description = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    assert description["model"]["server"] == {"url": server.url, "model": "tiny", "api": "chat"}


def ask(base: KnowledgeBase, *arguments: str):
    return CliRunner().invoke(app, ["ask", "--kb", str(base.path), *arguments])


def test_ask(server: Endpoint, base: KnowledgeBase, tmp_path: Path):
    (tmp_path / "key").write_text(f"{KEY}\n")
    server.reply = lambda message: Response(status_code=404) if "Kenya" in message else of_passage(message)
    options = [
        "--generator",
        server.url,
        "--generator-model",
        "tiny",
        "--generator-key-file",
        str(tmp_path / "key"),
    ]
    result = ask(base, *options, "--n-docs", "3", "--json", QUESTION, "Where?")
    assert result.exit_code == 0, result.output
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [answer["answer"] for answer in answers] == ["Lima", "Lima"]
    assert sum(passage["posterior"] for passage in answers[0]["passages"]) == pytest.approx(1)
    assert result.stderr.count("did not count") == 2 and "status 404" in result.stderr
    assert server.headers[-1]["authorization"] == f"Bearer {KEY}" and KEY not in result.output
    shown = ask(base, *options, "--explain", QUESTION)
    assert shown.exit_code == 0 and "Lima" in shown.stdout
    for wrong in ([*options, "--model", "other"], [*options, "--beams", "2"], options[:2]):
        result = ask(base, *wrong, QUESTION)
        assert result.exit_code == 1 and "error: " in result.stderr
