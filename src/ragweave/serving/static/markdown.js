// Shows a text with marks, as it is or as Markdown. All of it becomes text nodes, so HTML in it is never interpreted.

const INLINE = /\*\*([^*]+)\*\*|\*([^\s*][^*]*)\*|`([^`]+)`|!?\[([^\]]*)\]\((?:[^()\s]|\([^()\s]*\))*\)/g;
const TAGS = [, "strong", "em", "code", "span"];

// How many characters of a text belong to a first line that repeats the title above it, as a heading does.
export function titleLength({ title, text }) {
  const [first] = text.trimStart().split("\n", 1);
  const rest = text.trimStart().slice(first.length).trimStart();
  if (!title || !rest || first.replace(/^#+/, "").trim() !== title) return 0;
  return Array.from(text.slice(0, text.length - rest.length)).length;
}

// Runs have a start and an end, in Unicode characters; each gets the elements that mark it, as `marks`.
// The text is shown from a character on.
export function show(element, text, runs = [], markdown = false, from = 0) {
  const units = [0]; // where each character begins in UTF-16
  for (const character of text) units.push(units.at(-1) + character.length);
  from = units[from];
  const marked = runs.map((run) => ({ run, start: units[run.start], end: units[run.end] }));
  for (const { run } of marked) run.marks = [];
  element.replaceChildren(...(markdown ? blocks(text, marked, from) : piecesOf(text, from, text.length, marked)));
  element.classList.toggle("markdown", markdown);
}

function make(tag, ...children) {
  const element = document.createElement(tag);
  element.append(...children);
  return element;
}

// A part of the text, split where marks begin and end.
function piecesOf(text, start, end, marked) {
  const pieces = [];
  for (const one of marked) {
    const from = Math.max(start, one.start);
    const to = Math.min(end, one.end);
    if (from >= to) continue; // elsewhere, or inside a longer mark
    const mark = make("mark", text.slice(from, to));
    one.run.marks.push(mark);
    pieces.push(text.slice(start, from), mark);
    start = to;
  }
  return [...pieces, text.slice(start, end)].filter(Boolean);
}

function inline(text, start, end, marked) {
  const pieces = [];
  let done = start;
  for (const match of text.slice(start, end).matchAll(INLINE)) {
    const first = start + match.index;
    const group = [1, 2, 3, 4].find((number) => match[number] !== undefined);
    const begin = first + (group === 1 || match[0].startsWith("!") ? 2 : 1);
    pieces.push(...piecesOf(text, done, first, marked));
    pieces.push(make(TAGS[group], ...piecesOf(text, begin, begin + match[group].length, marked)));
    done = first + match[0].length;
  }
  return [...pieces, ...piecesOf(text, done, end, marked)];
}

// Headings, items of lists, rows of tables and paragraphs; each is a line.
function blocks(text, marked, from) {
  const nodes = [];
  let rows = null; // of the table that the line before belongs to
  let start = from;
  for (const line of text.slice(from).split("\n")) {
    const part = (from, to = line.length) => inline(text, start + from, start + to, marked);
    const begin = line.match(/^\s*(#{1,6}\s+)?/)[0].length;
    const isRow = /^\s*\|.*\|\s*$/.test(line);
    if (isRow && rows && /^[\s|:-]+$/.test(line)) {
      for (const cell of rows.lastChild.children) cell.replaceWith(make("th", ...cell.childNodes));
    } else if (isRow) {
      if (!rows) nodes.push(make("table", (rows = make("tbody"))));
      const bars = [...line.matchAll(/(?<!\\)\|/g)].map((match) => match.index);
      rows.append(make("tr", ...bars.slice(1).map((bar, i) => make("td", ...part(bars[i] + 1, bar)))));
    } else if (line.trim()) {
      const block = make("p", ...part(begin));
      if (line.trimStart().startsWith("#") && begin) block.className = "heading";
      else if (/^\s*([-*+]|\d+[.)])\s/.test(line)) block.className = "item";
      nodes.push(block);
    }
    if (!isRow) rows = null;
    start += line.length + 1;
  }
  return nodes;
}
