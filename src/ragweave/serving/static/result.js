// One answer with its passages, which keep the order and the colours of retrieval.

const COLOURS = 8;
const percent = (share) => share.toFixed(3);
export const copyOf = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);

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
      item.querySelector(".text").textContent = passage.text;
      item.querySelector(".source").textContent = originOf(passage);
      item.querySelector(".source").href = `/documents?id=${encodeURIComponent(passage.id)}#passage`;
      measure(item, "prior", passage.prior, "Retrieved");
      return item;
    });
    this.part(".passages").replaceChildren(...this.items);
  }

  append(text) {
    this.answer.append(text);
  }

  finish(answer, asked) {
    this.part(".searched").hidden = answer.question === asked;
    this.part(".searched").textContent = `Searched for: ${answer.question}`;
    // The answer lists its passages by posterior; their positions here.
    const positions = answer.passages.map((passage) => this.positions.get(passage.id));
    answer.passages.forEach((passage, i) => measure(this.items[positions[i]], "posterior", passage.posterior, "For the answer"));
    this.marks = mark(answer, positions.map((position) => this.items[position]));
    const parts = answer.tokens.flatMap((token) => this.token(token, positions));
    this.answer.replaceChildren(...parts);
    this.part(".token")?.dispatchEvent(new Event("pointerenter"));
    if (!parts.length) this.answer.textContent = answer.answer || "(no answer)";
    const guess = answer.best_guess ? ` Best guess: ${answer.best_guess}` : "";
    this.part(".judgement").textContent = `Confidence ${answer.confidence.toFixed(2)}.${guess}`;
    this.end();
  }

  end() {
    this.element.setAttribute("aria-busy", "false");
  }

  // A button that shows the posteriors of a token, with the white space before it.
  token(token, positions) {
    const word = token.text.trimStart();
    const space = token.text.slice(0, token.text.length - word.length);
    if (!word) return space ? [space] : [];
    const button = document.createElement("button");
    button.type = "button";
    button.className = "token";
    button.textContent = word;
    if (token.posteriors.length) {
      const best = token.posteriors.indexOf(Math.max(...token.posteriors));
      button.classList.add(`passage-${positions[best] % COLOURS}`);
      button.style.setProperty("--weight", token.posteriors[best]);
      button.setAttribute("aria-label", `${word}, passage ${positions[best] + 1}, ${percent(token.posteriors[best])}`);
      const show = () => this.showToken(button, token, word, positions);
      for (const event of ["pointerenter", "focus", "click"]) button.addEventListener(event, show);
    }
    return space ? [space, button] : [button];
  }

  showToken(button, token, word, positions) {
    for (const shown of this.element.querySelectorAll(".shown")) shown.classList.remove("shown");
    button.classList.add("shown");
    if (token.support) this.marks.get(keyOf(token.support))?.classList.add("shown");
    this.part(".detail-title").textContent = `Posterior of each passage for “${word}”, p(z | x, y≤t):`;
    const rows = token.posteriors.map((posterior, i) => ({ posterior, position: positions[i] }));
    rows.sort((a, b) => a.position - b.position);
    this.part(".bars").replaceChildren(...rows.map(({ posterior, position }) => bar(posterior, position)));
  }
}

// "handbook.pdf, page 3"
function originOf({ source, place }) {
  const parts = ["page", "slide", "sheet", "row", "line"].map((name) => place?.[name] && `${name} ${place[name]}`);
  return [source, place?.heading.join(" > "), ...parts].filter(Boolean).join(", ");
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

const keyOf = (support) => `${support.passage} ${support.field} ${support.start} ${support.end}`;

// Mark the words that tokens repeat. Offsets count Unicode characters, but JavaScript strings count UTF-16 units.
function mark(answer, items) {
  const marks = new Map();
  const supports = new Map();
  for (const { support } of answer.tokens) if (support) supports.set(keyOf(support), support);
  answer.passages.forEach((passage, i) => {
    for (const field of ["title", "text"]) {
      const runs = [...supports.values()].filter((support) => support.passage === i && support.field === field);
      runs.sort((a, b) => a.start - b.start || b.end - a.end);
      const characters = Array.from(passage[field]);
      const parts = [];
      let done = 0;
      for (const run of runs) {
        if (run.start < done) continue; // inside a longer mark
        const words = document.createElement("mark");
        words.textContent = characters.slice(run.start, run.end).join("");
        marks.set(keyOf(run), words);
        parts.push(characters.slice(done, run.start).join(""), words);
        done = run.end;
      }
      if (parts.length) items[i].querySelector(`.${field}`).replaceChildren(...parts, characters.slice(done).join(""));
    }
  });
  return marks;
}
