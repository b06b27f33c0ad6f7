// Server-sent events of a response that was asked for by POST, which EventSource cannot do.

export async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      waiting += value;
      const blocks = waiting.split("\n\n");
      waiting = blocks.pop();
      for (const block of blocks) {
        const fields = block.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]);
        const found = Object.fromEntries(fields);
        yield { name: found.event ?? "message", data: JSON.parse(found.data) };
      }
    }
  } finally {
    reader.cancel();
  }
}
