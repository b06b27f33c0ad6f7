"""Bodies of requests and responses."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ragweave.provenance.answers import Answer
from ragweave.types import Formulation, Place, ScoredPassage

Count = Annotated[int, Field(ge=1, strict=True)]
Question = Annotated[str, Field(min_length=1, description="A question. It must not be blank.")]
MinConfidence = Annotated[
    float | None,
    Field(ge=0, le=1, description="From which confidence on to give an answer; 0 gives every answer."),
]
Where = Annotated[
    str | None, Field(min_length=1, description="A condition on metadata that passages must meet.")
]
NDocs = Annotated[Count | None, Field(description="K, passages per question.")]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=False)


class _ChatPart(BaseModel):
    """A part of a chat. OpenAI clients send fields that have no meaning here."""

    model_config = ConfigDict(extra="ignore")


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
    formulation: Formulation | None = Field(None, description="RAG-Token or RAG-Sequence.")
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


class DocumentsRequest(_Request):
    """Documents to add."""

    documents: list[DocumentIn] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_ids(self) -> Self:
        if len({document.id for document in self.documents}) < len(self.documents):
            raise ValueError("two documents have the same id")
        return self


class ChangeResponse(BaseModel):
    """The knowledge base after a change."""

    version: str = Field(description="The version that answers from now on.")
    documents: int
    passages: int


class KnowledgeBaseResponse(ChangeResponse):
    """The knowledge base, and the defaults and limits of requests."""

    created: str
    encoder: str
    dimension: int
    formulation: Formulation
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


class TextPart(BaseModel):
    """A text part of a message."""

    type: Literal["text"]
    text: str


class Message(_ChatPart):
    """A message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None

    @property
    def text(self) -> str:
        """The text of all parts."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(_ChatPart):
    """Options of a streamed chat."""

    include_usage: bool = False


class ChatRequest(_ChatPart):
    """A chat. Its last user message is the question. Unknown fields are ignored."""

    model: str
    messages: list[Message] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    n: Count | None = None
    tools: list[Any] | None = None
    logprobs: bool | None = None
    response_format: dict[str, Any] | None = None
    n_docs: NDocs = None
    where: Where = None
    num_beams: Count | None = Field(None, description="R, beams.")
    min_confidence: MinConfidence = None


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
    posterior: float = Field(description="Mean of p(z | x, y_<=t) over the tokens of the part.")


class Annotation(BaseModel):
    """An annotation of the answer."""

    type: Literal["url_citation"] = "url_citation"
    url_citation: UrlCitation


class ChatMessage(BaseModel):
    """The answer as a message."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None
    annotations: list[Annotation]
    confidence: float | None = Field(description="How likely the answer is right, an extension of ragweave.")
    answered: bool = Field(description="Whether the confidence sufficed, an extension of ragweave.")
    best_guess: str | None = Field(description="The answer that was withheld, an extension of ragweave.")
    searched_for: str = Field(description="The question as it stands alone, an extension of ragweave.")


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
