"""What requests and responses look like."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ragweave.pipeline.rag_pipeline import Formulation
from ragweave.provenance.answers import Answer
from ragweave.types import ScoredPassage

Count = Annotated[int, Field(ge=1, strict=True)]
Question = Annotated[str, Field(min_length=1, description="A question; white space alone is none.")]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=False)


class RetrieveRequest(_Request):
    """A question, or several, and how many passages to find for each."""

    question: Question | None = Field(None, description="One question; give this or questions.")
    questions: Annotated[list[Question], Field(min_length=1)] | None = Field(
        None, description="Several questions; give this or question."
    )
    n_docs: Count | None = Field(None, description="K, passages per question.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.question is None) == (self.questions is None):
            raise ValueError("give question or questions, and not both")
        return self

    @property
    def asked(self) -> list[str]:
        """The questions, however they were given."""
        return [self.question] if self.question is not None else list(self.questions or ())


class AnswersRequest(RetrieveRequest):
    """A question, or several, and how to answer them."""

    num_beams: Count | None = Field(
        None, description="R, beams per question (RAG-Token) or passage (RAG-Sequence)."
    )
    max_new_tokens: Count | None = Field(None, description="The longest answer, in tokens.")
    formulation: Formulation | None = Field(None, description="RAG-Token or RAG-Sequence.")
    stream: bool = Field(
        False,
        strict=True,
        description="Send events: passages, token by token the answer, and all of it at the end.",
    )


class AnswersResponse(BaseModel):
    """Answers in the order of their questions."""

    answers: list[Answer]


class Retrieval(BaseModel):
    """What was found for a question, by falling p(z|x)."""

    question: str
    passages: list[ScoredPassage]


class RetrieveResponse(BaseModel):
    """What was found, in the order of the questions."""

    results: list[Retrieval]


class DocumentIn(_Request):
    """A document to add, in place of the one with its id that was added before."""

    id: str = Field(
        min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f#]+$", description="Its id, without #."
    )
    title: str = Field("", max_length=1024, description="Its title.")
    text: str = Field(min_length=1, description="Its text.")

    @field_validator("text")
    @classmethod
    def _has_words(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("the text is empty")
        return text

    @field_validator("id")
    @classmethod
    def _is_trimmed(cls, own: str) -> str:
        if own != own.strip():
            raise ValueError("the id begins or ends with white space")
        return own


class DocumentsRequest(_Request):
    """Documents to add."""

    documents: list[DocumentIn] = Field(min_length=1)

    @model_validator(mode="after")
    def _are_different(self) -> Self:
        if len({own.id for own in self.documents}) < len(self.documents):
            raise ValueError("two documents have one id")
        return self


class ChangeResponse(BaseModel):
    """The knowledge base after a change."""

    version: str = Field(description="The version that is answered from now on.")
    documents: int
    passages: int


class KnowledgeBaseResponse(ChangeResponse):
    """The knowledge base that is answered from, and what may be asked of it."""

    created: str
    encoder: str
    dimension: int
    formulation: Formulation
    defaults: dict[str, int]
    limits: dict[str, int]


class TextPart(BaseModel):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """A message of a chat."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None

    @property
    def words(self) -> str:
        """The text of all its parts."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(BaseModel):
    """How a chat is streamed."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False


class ChatRequest(BaseModel):
    """A chat; its last message of the user is the question. What is not named here is passed over."""

    model_config = ConfigDict(extra="ignore")

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
    n_docs: Count | None = Field(None, description="K, passages per question.")
    num_beams: Count | None = Field(None, description="R, beams.")


class UrlCitation(BaseModel):
    """Where a part of an answer came from."""

    start_index: int = Field(description="Where the part begins in the answer, in characters.")
    end_index: int = Field(description="Where it ends.")
    title: str
    url: str = Field(
        description="Where the passage was read, if that is an address; else a name of the passage."
    )
    passage_id: str
    posterior: float = Field(description="The mean of p(z | x, y_<=t) over the tokens of the part.")


class Annotation(BaseModel):
    """An annotation of an answer."""

    type: Literal["url_citation"] = "url_citation"
    url_citation: UrlCitation


class ChatMessage(BaseModel):
    """The answer as a message."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None
    annotations: list[Annotation]


class ChatChoice(BaseModel):
    """The one choice of a chat."""

    index: int = 0
    message: ChatMessage
    finish_reason: Literal["stop", "length"]
    logprobs: None = None


class Usage(BaseModel):
    """How many tokens: of the question as the generator reads it, and of the answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatResponse(BaseModel):
    """An answer in the shape of OpenAI's chat completions."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class ModelCard(BaseModel):
    """A model that chats may name."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "ragweave"


class ModelList(BaseModel):
    """All models that chats may name."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
