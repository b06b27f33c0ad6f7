// One answer with its passages. Passages keep the order and the colour in which they were retrieved.

const COLOURS = 8;
const percent = (share) => share.toFixed(3);
const copyOf = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);

export class ResultView {
  constructor(name) {
    this.element = copyOf("result");
    this.part(".name").textContent = name;
    this.answer = this.part(".answer");
    this.places = new Map(); // of passages, by their ids
    this.items = [];
  }

  part(selector) {
    return this.element.querySelector(selector);
  }

  get isEmpty() {
    return this.items.length === 0;
  }

  showPassages(passages) {
    this.items = passages.map((passage, place) => {
      this.places.set(passage.id, place);
      const item = copyOf("passage");
      item.classList.add(`passage-${place % COLOURS}`);
      item.querySelector(".number").textContent = place + 1;
      item.querySelector(".title").textContent = passage.title || passage.id;
      item.querySelector(".text").textContent = passage.text;
      item.querySelector(".source").textContent = passage.source;
      measure(item, "prior", passage.prior, "Retrieved");
      return item;
    });
    this.part(".passages").replaceChildren(...this.items);
  }

  append(text) {
    this.answer.append(text);
  }

  finish(answer) {
    // Where each passage of the answer stands here.
    const places = answer.passages.map((passage) => this.places.get(passage.id));
    answer.passages.forEach((passage, own) => measure(this.items[places[own]], "posterior", passage.posterior, "For the answer"));
    this.marks = mark(answer, places.map((place) => this.items[place]));
    const parts = answer.tokens.flatMap((token) => this.token(token, places));
    this.answer.replaceChildren(...parts);
    this.part(".token")?.dispatchEvent(new Event("pointerenter"));
    if (!answer.answer) this.answer.textContent = "(no answer)";
    this.end();
  }

  end() {
    this.element.setAttribute("aria-busy", "false");
  }

  // A token as a button that shows its posteriors, and the white space before it.
  token(token, places) {
    const word = token.text.trimStart();
    const space = token.text.slice(0, token.text.length - word.length);
    if (!word) return space ? [space] : [];
    const button = document.createElement("button");
    button.type = "button";
    button.className = "token";
    button.textContent = word;
    if (token.posteriors.length) {
      const best = token.posteriors.indexOf(Math.max(...token.posteriors));
      button.classList.add(`passage-${places[best] % COLOURS}`);
      button.style.setProperty("--weight", token.posteriors[best]);
      button.setAttribute("aria-label", `${word}, passage ${places[best] + 1}, ${percent(token.posteriors[best])}`);
      const show = () => this.showToken(button, token, word, places);
      for (const event of ["pointerenter", "focus", "click"]) button.addEventListener(event, show);
    }
    return space ? [space, button] : [button];
  }

  showToken(button, token, word, places) {
    for (const shown of this.element.querySelectorAll(".shown")) shown.classList.remove("shown");
    button.classList.add("shown");
    if (token.support) this.marks.get(keyOf(token.support))?.classList.add("shown");
    this.part(".detail-title").textContent = `How much each passage counts for “${word}”, p(z | x, y≤t):`;
    const rows = token.posteriors.map((posterior, own) => ({ posterior, place: places[own] }));
    rows.sort((one, other) => one.place - other.place);
    this.part(".bars").replaceChildren(...rows.map(({ posterior, place }) => bar(posterior, place)));
  }
}

function bar(posterior, place) {
  const row = document.createElement("li");
  row.className = `passage-${place % COLOURS}`;
  const parts = ["number", "bar", "figure"].map((name) => {
    const part = document.createElement("span");
    part.className = name;
    return part;
  });
  parts[0].textContent = place + 1;
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

// Mark the words that tokens repeat. Places are counted in characters of Unicode, not in JavaScript's units.
function mark(answer, items) {
  const marks = new Map();
  const wanted = new Map();
  for (const { support } of answer.tokens) if (support) wanted.set(keyOf(support), support);
  answer.passages.forEach((passage, own) => {
    for (const field of ["title", "text"]) {
      const runs = [...wanted.values()].filter((one) => one.passage === own && one.field === field);
      runs.sort((one, other) => one.start - other.start || other.end - one.end);
      const characters = Array.from(passage[field]);
      const parts = [];
      let done = 0;
      for (const run of runs) {
        if (run.start < done) continue; // within one that is marked
        const words = document.createElement("mark");
        words.textContent = characters.slice(run.start, run.end).join("");
        marks.set(keyOf(run), words);
        parts.push(characters.slice(done, run.start).join(""), words);
        done = run.end;
      }
      if (parts.length) items[own].querySelector(`.${field}`).replaceChildren(...parts, characters.slice(done).join(""));
    }
  });
  return marks;
}
