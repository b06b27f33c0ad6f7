// Shows the text of a document as Markdown, if it is. The passage that is marked keeps its mark.

import { show } from "/static/markdown.js";

export function showMarkdown() {
  const main = document.querySelector("main[data-markdown]");
  let parts = [];
  const flush = () => {
    if (!parts.length) return;
    const part = document.createElement("div");
    parts[0].before(part);
    const before = parts.slice(0, parts.findIndex((one) => one.id)).map((one) => one.textContent).join("");
    const passage = parts.find((one) => one.id)?.textContent ?? "";
    const start = Array.from(before).length;
    const run = { start, end: start + Array.from(passage).length };
    show(part, parts.map((one) => one.textContent).join(""), passage ? [run] : [], true);
    if (passage) (run.marks[0] ?? part).id = "passage";
    for (const one of parts) one.remove();
    parts = [];
  };
  for (const node of [...(main?.childNodes ?? [])]) {
    if (node.nodeType === Node.TEXT_NODE || node.id === "passage") parts.push(node);
    else flush();
  }
  flush();
  document.getElementById("passage")?.scrollIntoView({ block: "center" });
}

showMarkdown();
