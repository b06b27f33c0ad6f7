"""Bodies of requests and responses."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from ragweave.knowledge.base import KnowledgeBase
from ragweave.provenance.answers import Answer
from ragweave.types import AnswerFormulation, Place, ScoredPassage

ID = r"^[^\x00-\x1f\x7f#]+$"
Count = Annotated[int, Field(ge=1, strict=True)]
Question = Annotated[str, Field(min_length=1, description="A question. It must not be blank.")]
MinConfidence = Annotated[
    float | None,
    Field(ge=0, le=1, description="The lowest confidence at which to give an answer; 0 gives every answer."),
]
Stop = Annotated[str, Field(min_length=1)]
Where = Annotated[
    str | None, Field(min_length=1, description="A condition on metadata that passages must meet.")
]
NDocs = Annotated[Count | None, Field(description="K, passages per question.")]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", str_max_length=2**31 - 1)


class ChatPart(BaseModel):
    """A part of a chat. OpenAI clients send fields that have no meaning here."""

    # With a maximum, pydantic also rejects lone surrogates; the service limits the length of a body itself.
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
        """The questions, from either field."""
        return [self.question] if self.question is not None else list(self.questions or ())


class AgentRetrieveRequest(ChatPart):
    """Questions in the format of agents trained with search, such as Search-R1. Other fields are ignored."""

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

    history: list[Turn] = Field([], description="The conversation so far; questions may refer to it.")

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
    """A passage in the format of those agents."""

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

    id: str = Field(min_length=1, max_length=512, pattern=ID, description="The id, without #.")
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


class Source(BaseModel):
    """The source of documents: a file or an upload."""

    id: str
    name: str
    passages: int
    uploaded: bool = Field(description="Whether it came over HTTP, so that there is no file to read again.")


class SourcesResponse(BaseModel):
    """Sources in the order of their names."""

    sources: list[Source]
    total: int = Field(description="The number of matching sources, of which the first ones are listed.")


class ChangeResponse(BaseModel):
    """The knowledge base after a change."""

    version: str = Field(description="The current version.")
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
    name: str = Field(description="The name of the knowledge base.")
    names: list[str] = Field(description="The names of all knowledge bases, for the parameter kb.")
    changes: Literal["nobody", "admin key", "everybody"] = Field(description="Who may change documents.")


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


class Part(ChatPart):
    """A part of a message: a text, or something else, such as an image."""

    type: str
    text: str | None = None

    @property
    def is_text(self) -> bool:
        """Whether it is a text in a chat or in a response."""
        return self.type in ("text", "input_text", "output_text")


class Message(ChatPart):
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
