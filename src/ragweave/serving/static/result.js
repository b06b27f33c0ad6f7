// One answer with its passages, which keep the order and the colours of retrieval.

import { address, copyOf, isMarkdown } from "/static/api.js";
import { show, titleLength } from "/static/markdown.js";

const COLOURS = 8;
const percent = (share) => share.toFixed(3);
const isExpert = () => document.body.classList.contains("expert");

export class ResultView {
  constructor(name) {
    this.element = copyOf("result");
    this.part(".name").textContent = name;
    this.answer = this.part(".answer");
    this.positions = new Map(); // passage id to position
    this.items = [];
  }

  part(selector) {
    return this.element.querySelector(selector);
  }

  get isEmpty() {
    return this.items.length === 0;
  }

  showPassages(passages) {
    this.items = passages.map((passage, position) => {
      this.positions.set(passage.id, position);
      const item = copyOf("passage");
      item.classList.add(`passage-${position % COLOURS}`);
      item.querySelector(".number").textContent = position + 1;
      item.querySelector(".title").textContent = passage.title || passage.id;
      show(item.querySelector(".text"), passage.text, [], isMarkdown(passage.source), titleLength(passage));
      item.querySelector(".source").textContent = originOf(passage);
      item.querySelector(".source").href = `${address("/documents", { id: passage.id })}#passage`;
      measure(item, "prior", passage.prior, "Retrieved");
      return item;
    });
    this.part(".passages").replaceChildren(...this.items);
  }

  append(text) {
    this.answer.append(text);
  }

  finish(answer, asked) {
    this.redraw = () => this.finish(answer, asked);
    this.part(".searched").hidden = answer.question === asked;
    this.part(".searched").textContent = `Searched for: ${answer.question}`;
    // The answer lists its passages by posterior; their positions here.
    const positions = answer.passages.map((passage) => this.positions.get(passage.id));
    answer.passages.forEach((passage, i) => measure(this.items[positions[i]], "posterior", passage.posterior, "For the answer"));
    this.marks = mark(answer, positions.map((position) => this.items[position]));
    const parts = answer.tokens.flatMap((token) => this.token(token, positions));
    this.answer.replaceChildren(...parts);
    this.part("button.token")?.dispatchEvent(new Event("pointerenter"));
    if (!parts.length) this.answer.textContent = answer.answer || "(no answer)";
    this.part(".confidence").textContent = `Confidence ${answer.confidence.toFixed(2)}.`;
    this.part(".guess").textContent = answer.best_guess ? ` Best guess: ${answer.best_guess}` : "";
    this.part("h3").textContent = answer.answered ? "Sources" : "Nearest passages";
    this.end();
  }

  end() {
    this.element.setAttribute("aria-busy", "false");
  }

  // A token in the colour of its passage, with the white space before it; for experts a button that shows posteriors.
  token(token, positions) {
    const word = token.text.trimStart();
    const space = token.text.slice(0, token.text.length - word.length);
    if (!word) return space ? [space] : [];
    const button = document.createElement(isExpert() ? "button" : "span");
    if (isExpert()) button.type = "button";
    button.className = "token";
    button.textContent = word;
    if (token.posteriors.length) {
      const best = token.posteriors.indexOf(Math.max(...token.posteriors));
      button.classList.add(`passage-${positions[best] % COLOURS}`);
      button.style.setProperty("--weight", token.posteriors[best]);
      if (!isExpert()) return space ? [space, button] : [button];
      button.setAttribute("aria-label", `${word}, passage ${positions[best] + 1}, ${percent(token.posteriors[best])}`);
      const show = () => this.showToken(button, token, word, positions);
      for (const event of ["pointerenter", "focus", "click"]) button.addEventListener(event, show);
    }
    return space ? [space, button] : [button];
  }

  showToken(button, token, word, positions) {
    for (const shown of this.element.querySelectorAll(".shown")) shown.classList.remove("shown");
    button.classList.add("shown");
    for (const words of this.marks.get(keyOf(token.support))?.marks ?? []) words.classList.add("shown");
    this.part(".detail-title").textContent = `Posterior of each passage for “${word}”, p(z | x, y≤t):`;
    const rows = token.posteriors.map((posterior, i) => ({ posterior, position: positions[i] }));
    rows.sort((a, b) => a.position - b.position);
    this.part(".bars").replaceChildren(...rows.map(({ posterior, position }) => bar(posterior, position)));
  }
}

// "handbook.pdf, page 3"
function originOf({ source, place, title }) {
  const named = title.split(" > "); // headings that the title shows
  const heading = place?.heading.slice(named.every((one, i) => one === place.heading[i]) ? named.length : 0).join(" > ");
  const parts = ["page", "slide", "sheet", "row", "line"].map((name) => place?.[name] && `${name} ${place[name]}`);
  return [source.replace(/^posted:/, ""), heading, ...parts].filter(Boolean).join(", ");
}

function bar(posterior, position) {
  const row = document.createElement("li");
  row.className = `passage-${position % COLOURS}`;
  const parts = ["number", "bar", "figure"].map((name) => {
    const part = document.createElement("span");
    part.className = name;
    return part;
  });
  parts[0].textContent = position + 1;
  parts[1].style.setProperty("--share", posterior);
  parts[2].textContent = percent(posterior);
  row.append(...parts);
  return row;
}

function measure(item, name, share, label) {
  item.querySelector(`.bar.${name}`).style.setProperty("--share", share);
  const figure = item.querySelector(`.${name}-figure`);
  figure.textContent = percent(share);
  figure.setAttribute("aria-label", `${label}: ${percent(share)}`);
}

const keyOf = (support) => support && `${support.passage} ${support.field} ${support.start} ${support.end}`;

// A run of words in the line that repeats the title, which is not shown, is one of the title.
function shownRun(run, passage) {
  if (run.field === "title" || run.start >= titleLength(passage)) return { ...run };
  const before = Array.from(passage.text.slice(0, passage.text.indexOf(passage.title))).length;
  const end = Math.min(run.end - before, Array.from(passage.title).length);
  return { ...run, field: "title", start: Math.max(run.start - before, 0), end };
}

// Mark the words that tokens repeat, and return the runs with their marks.
function mark(answer, items) {
  const supports = answer.tokens.map(({ support }) => support).filter(Boolean);
  const runs = new Map(supports.map((run) => [keyOf(run), shownRun(run, answer.passages[run.passage])]));
  answer.passages.forEach((passage, i) => {
    for (const field of ["title", "text"]) {
      const own = [...runs.values()].filter((run) => run.passage === i && run.field === field);
      own.sort((a, b) => a.start - b.start || b.end - a.end);
      const element = items[i].querySelector(`.${field}`);
      const isText = field === "text";
      if (own.length) show(element, passage[field], own, isText && isMarkdown(passage.source), isText ? titleLength(passage) : 0);
    }
  });
  return runs;
}
