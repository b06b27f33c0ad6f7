"""Bodies of requests and responses in OpenAI's formats."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from ragweave.serving.schemas import ChatPart, Count, Message, MinConfidence, NDocs, Stop, Where
from ragweave.types import Place


class StreamOptions(ChatPart):
    """Options of a streamed chat."""

    include_usage: bool | None = None


class CompletionRequest(ChatPart):
    """Fields that chat and response requests share. Unknown fields are ignored."""

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


class EmbeddingsRequest(ChatPart):
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
    """The confidence of the answer and the question that was searched for: extensions of ragweave."""

    confidence: float | None = Field(description="How likely the answer is to be right.")
    answered: bool = Field(description="Whether the confidence reached the threshold.")
    best_guess: str | None = Field(description="The answer that was withheld.")
    searched_for: str = Field(description="The question, rewritten to stand alone.")


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
