// Server-sent events of a POST request; EventSource supports only GET.

export async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      buffer += value;
      const blocks = buffer.split("\n\n");
      buffer = blocks.pop();
      for (const block of blocks) {
        const fields = block.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]);
        const event = Object.fromEntries(fields);
        yield { name: event.event ?? "message", data: JSON.parse(event.data) };
      }
    }
  } finally {
    reader.cancel();
  }
}
