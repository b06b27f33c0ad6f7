"""Bodies of requests and responses."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from ragweave.knowledge.base import KnowledgeBase
from ragweave.provenance.answers import Answer
from ragweave.types import AnswerFormulation, Place, ScoredPassage

Count = Annotated[int, Field(ge=1, strict=True)]
Question = Annotated[str, Field(min_length=1, description="A question. It must not be blank.")]
MinConfidence = Annotated[
    float | None,
    Field(ge=0, le=1, description="From which confidence on to give an answer; 0 gives every answer."),
]
Stop = Annotated[str, Field(min_length=1)]
Where = Annotated[
    str | None, Field(min_length=1, description="A condition on metadata that passages must meet.")
]
NDocs = Annotated[Count | None, Field(description="K, passages per question.")]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", str_max_length=2**31 - 1)


class _ChatPart(BaseModel):
    """A part of a chat. OpenAI clients send fields that have no meaning here."""

    # With a maximum, pydantic also rejects halves of characters; the service limits the length of a body itself.
    model_config = ConfigDict(extra="ignore", str_max_length=2**31 - 1)


class RetrieveRequest(_Request):
    """One or several questions, and how many passages to retrieve for each."""

    question: Question | None = Field(None, description="One question. Give this or questions.")
    questions: Annotated[list[Question], Field(min_length=1)] | None = Field(
        None, description="Several questions. Give this or question."
    )
    n_docs: NDocs = None
    where: Where = None

    @model_validator(mode="after")
    def _check_questions(self) -> Self:
        if (self.question is None) == (self.questions is None):
            raise ValueError("give question or questions, not both")
        return self

    @property
    def all_questions(self) -> list[str]:
        """The questions, however they were given."""
        return [self.question] if self.question is not None else list(self.questions or ())


class AgentRetrieveRequest(_ChatPart):
    """Questions as agents that were trained with search, such as Search-R1, ask them. Other fields are ignored."""

    queries: Annotated[list[Question], Field(min_length=1)] = Field(description="Several questions.")
    topk: NDocs = None
    where: Where = None
    return_scores: bool = Field(False, strict=True, description="Return each document with its score.")


class Turn(_Request):
    """An earlier question with its answer."""

    question: Question
    answer: str


class AnswersRequest(RetrieveRequest):
    """One or several questions, and how to answer them."""

    history: list[Turn] = Field([], description="What was said before; questions may lean on it.")

    num_beams: Count | None = Field(
        None, description="R, beams per question (RAG-Token) or per passage (RAG-Sequence)."
    )
    max_new_tokens: Count | None = Field(None, description="Maximum length of the answer, in tokens.")
    formulation: AnswerFormulation | None = Field(
        None, description="RAG-Token, RAG-Sequence, or all passages in one prompt."
    )
    min_confidence: MinConfidence = None
    stream: bool = Field(
        False,
        strict=True,
        description="Stream events: the passages, the answer piece by piece, and the complete answer.",
    )


class AnswersResponse(BaseModel):
    """Answers in the order of the questions."""

    answers: list[Answer]


class Retrieval(BaseModel):
    """The passages of a question, by decreasing p(z|x)."""

    question: str
    passages: list[ScoredPassage]


class RetrieveResponse(BaseModel):
    """Passages in the order of the questions."""

    results: list[Retrieval]


class AgentDocument(BaseModel):
    """A passage as those agents read it."""

    id: str
    contents: str = Field(description="The title, a line break and the text.")
    source: str
    place: Place | None


class AgentHit(BaseModel):
    """A passage with its score, the logit of p(z|x)."""

    document: AgentDocument
    score: float


class AgentRetrieveResponse(BaseModel):
    """The passages of each question, with scores if they were asked for."""

    result: list[list[AgentHit]] | list[list[AgentDocument]]


class DocumentIn(_Request):
    """A document to add. It replaces the document with the same id that was added over HTTP before."""

    id: str = Field(
        min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f#]+$", description="The id, without #."
    )
    title: str = Field("", max_length=1024, description="The title.")
    text: str = Field(min_length=1, description="The text.")

    @model_validator(mode="after")
    def _check_white_space(self) -> Self:
        if self.id != self.id.strip():
            raise ValueError("the id starts or ends with white space")
        if not self.text.strip():
            raise ValueError("the text is empty")
        return self


def _check_ids(documents: list[DocumentIn]) -> list[DocumentIn]:
    if len({document.id for document in documents}) < len(documents):
        raise ValueError("two documents have the same id")
    return documents


DocumentsIn = Annotated[list[DocumentIn], Field(min_length=1), AfterValidator(_check_ids)]


class DocumentsRequest(_Request):
    """Documents to add."""

    documents: DocumentsIn


class ChangeResponse(BaseModel):
    """The knowledge base after a change."""

    version: str = Field(description="The version that answers from now on.")
    documents: int
    passages: int

    @classmethod
    def of(cls, base: KnowledgeBase) -> ChangeResponse:
        """The response for a version."""
        manifest = base.manifest
        return ChangeResponse(version=base.version, documents=manifest.documents, passages=manifest.passages)


class KnowledgeBaseResponse(ChangeResponse):
    """The knowledge base, and the defaults and limits of requests."""

    created: str
    encoder: str
    dimension: int
    formulation: AnswerFormulation
    defaults: dict[str, int | float]
    limits: dict[str, int]


class Status(BaseModel):
    """The status of the service."""

    status: str


class ErrorDetail(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: None
    code: str
    status: int


class ErrorResponse(BaseModel):
    """The body of every error."""

    error: ErrorDetail


class Part(_ChatPart):
    """A part of a message: a text, or something else, such as an image."""

    type: str
    text: str | None = None

    @property
    def is_text(self) -> bool:
        """Whether it is a text in a chat or in a response."""
        return self.type in ("text", "input_text", "output_text")


class Message(_ChatPart):
    """A message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None

    @property
    def words(self) -> str:
        """The text of all parts that are text."""
        if isinstance(self.content, list):
            return " ".join(part.text.strip() for part in self.content if part.is_text and part.text)
        return self.content or ""

    @property
    def others(self) -> list[str]:
        """The types of the parts that are not text."""
        return (
            [part.type for part in self.content if not part.is_text] if isinstance(self.content, list) else []
        )


class StreamOptions(_ChatPart):
    """Options of a streamed chat."""

    include_usage: bool | None = None


class CompletionRequest(_ChatPart):
    """What requests of chats and of responses share. Unknown fields are ignored."""

    model: str
    stream: bool | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    n_docs: NDocs = None
    where: Where = None
    num_beams: Count | None = Field(None, description="R, beams.")
    min_confidence: MinConfidence = None


class ChatRequest(CompletionRequest):
    """A chat. Its last user message is the question."""

    messages: list[Message] = Field(min_length=1)
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = Field(
        None, description="The answer ends before the first of these texts."
    )
    n: Count | None = None
    logprobs: bool | None = None
    response_format: dict[str, Any] | None = None


class Item(Message):
    """An item of a response's input: a message, or something else, such as the call of a tool."""

    role: Literal["system", "developer", "user", "assistant"] | None = None  # type: ignore[assignment]


class ResponsesRequest(CompletionRequest):
    """The input of a response. Its last user message is the question."""

    input: str | Annotated[list[Item], Field(min_length=1)]
    max_output_tokens: Count | None = None
    text: dict[str, Any] | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    background: bool | None = None


class EmbeddingsRequest(_ChatPart):
    """Texts to embed."""

    model: str
    input: str | Annotated[list[str] | list[int] | list[list[int]], Field(min_length=1)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None


class Embedding(BaseModel):
    """The vector of a text: numbers, or little-endian float32 in base64."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingsUsage(BaseModel):
    """Tokens of the texts as the encoder reads them."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """Vectors in the order of the texts."""

    object: Literal["list"] = "list"
    model: str
    data: list[Embedding]
    usage: EmbeddingsUsage


class UrlCitation(BaseModel):
    """The passage behind a part of the answer."""

    start_index: int = Field(description="Start of the part in the answer, in characters.")
    end_index: int = Field(description="End of the part, exclusive.")
    title: str
    url: str = Field(
        description="The passage's source if that is a web page, otherwise the page of this service."
    )
    passage_id: str
    place: Place | None = Field(description="Where the passage begins in its source.")
    quote: str = Field(description="The words of the passage around those that the answer repeats.")
    posterior: float = Field(description="Mean of p(z | x, y_<=t) over the tokens of the part.")


class Annotation(BaseModel):
    """An annotation of the answer."""

    type: Literal["url_citation"] = "url_citation"
    url_citation: UrlCitation


class Judgement(BaseModel):
    """How sure the answer is, and what was asked: extensions of ragweave."""

    confidence: float | None = Field(description="How likely the answer is right.")
    answered: bool = Field(description="Whether the confidence sufficed.")
    best_guess: str | None = Field(description="The answer that was withheld.")
    searched_for: str = Field(description="The question as it stands alone.")


class ChatMessage(Judgement):
    """The answer as a message."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None
    annotations: list[Annotation]


class ChatChoice(BaseModel):
    """The only choice of a chat completion."""

    index: int = 0
    message: ChatMessage
    finish_reason: Literal["stop", "length"]
    logprobs: None = None


class Usage(BaseModel):
    """Tokens of the question as the generator reads it, and of the answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatResponse(BaseModel):
    """An answer in the format of OpenAI's chat completions."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class FlatCitation(UrlCitation):
    """A citation as responses write it."""

    type: Literal["url_citation"] = "url_citation"


class OutputText(BaseModel):
    """The text of an answer with its citations."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[FlatCitation]
    logprobs: list[Any] = []


class OutputMessage(Judgement):
    """The answer as an item of a response's output."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: Literal["completed", "incomplete"]
    content: list[OutputText]


class ResponseUsage(BaseModel):
    """Tokens of the question as the generator reads it, and of the answer."""

    input_tokens: int
    input_tokens_details: dict[str, int] = {"cached_tokens": 0}
    output_tokens: int
    output_tokens_details: dict[str, int] = {"reasoning_tokens": 0}
    total_tokens: int


class ResponsesResponse(BaseModel):
    """An answer in the format of OpenAI's responses."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    model: str
    status: Literal["in_progress", "completed", "incomplete"]
    error: None = None
    incomplete_details: dict[str, str] | None = None
    instructions: None = None
    metadata: dict[str, str] = {}
    output: list[OutputMessage] = []
    parallel_tool_calls: bool = False
    previous_response_id: None = None
    store: bool = False
    temperature: None = None
    text: dict[str, Any] = {"format": {"type": "text"}}
    tool_choice: str = "none"
    tools: list[Any] = []
    top_p: None = None
    truncation: str = "disabled"
    usage: ResponseUsage | None = None


class ModelCard(BaseModel):
    """A model name that chats may use."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "ragweave"


class ModelList(BaseModel):
    """All model names that chats may use."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
