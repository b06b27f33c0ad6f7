// The page: asks questions and shows streamed answers with the provenance of each token.
// Texts are inserted as text nodes only, so HTML in a document is never interpreted.

import { at, call, choose, copyOf, numbered, saveKey, showError } from "/static/api.js";
import { showDocuments } from "/static/documents.js";
import { eventsOf } from "/static/events.js";
import { ResultView } from "/static/result.js";

const NAMES = { token: "RAG-Token", sequence: "RAG-Sequence", concat: "One prompt of all passages", pced: "PCED" };
const HISTORY = "ragweave-asked";
const EXPERT = "ragweave-expert";
const HISTORY_LENGTH = 20;
const MOST_TURNS = 8; // the service reads no more

const form = at("ask");
let running = null; // aborts the running requests
let views = []; // of the answers that are shown
let turns = []; // earlier questions, as they stand alone, with their answers

// Stream the answer to one request under one formulation into a view.
async function answer(request, formulation, view, signal) {
  const history = turns.slice(-MOST_TURNS);
  const { kb, ...fields } = request;
  const body = { ...fields, formulation, history, stream: true };
  const response = await call("/v1/answers", { method: "POST", body: JSON.stringify(body), signal });
  for await (const { name, data } of eventsOf(response)) {
    if (name === "passages") view.showPassages(data.passages);
    else if (name === "token") view.append(data.text);
    else if (name === "answer") {
      view.finish(data, request.question);
      return { question: data.question, answer: data.answer };
    }
    else if (name === "error") throw new Error(data.error.message);
  }
  throw new Error("The stream ended early; the service may have stopped. Ask again.");
}

async function ask() {
  const request = {
    question: at("question").value.trim(),
    formulation: at("formulation").value,
    n_docs: at("n_docs").valueAsNumber,
    num_beams: at("num_beams").valueAsNumber,
    ...(at("kb").value && { kb: at("kb").value }),
  };
  if (!request.question) return;
  running?.abort();
  const controller = (running = new AbortController());
  saveKey();
  showError("");
  at("status").textContent = "Searching and answering …";
  at("stop").hidden = false;
  history.replaceState(null, "", `#${new URLSearchParams(request)}`);
  at("link").hidden = false;
  const all = request.formulation === "all";
  const formulations = all ? Object.keys(NAMES) : [request.formulation];
  views = formulations.map((formulation) => new ResultView(NAMES[formulation]));
  at("results").replaceChildren(...views.map((view) => view.element));
  at("results").classList.toggle("all", all);
  showTurns();
  const started = performance.now();
  const asked = views;
  const work = formulations.map((formulation, i) => answer(request, formulation, asked[i], controller.signal));
  const results = await Promise.allSettled(work);
  asked.forEach((view) => view.end());
  for (const view of asked) if (view.isEmpty) view.element.remove();
  if (running !== controller) return; // a newer question has replaced this one
  running = null;
  at("stop").hidden = true;
  const failed = results.find((result) => result.status === "rejected");
  if (!failed) {
    at("status").textContent = `Answered in ${((performance.now() - started) / 1000).toFixed(1)} s.`;
    turns.push(results[0].value);
    at("question").select();
    remember(request);
    showBase();
  } else if (failed.reason.name === "AbortError") {
    at("status").textContent = "Stopped.";
  } else {
    at("status").textContent = "";
    showError(failed.reason.message);
  }
}

// What was said before the answer below.
function showTurns() {
  at("conversation").hidden = turns.length === 0;
  const items = turns.map(({ question, answer }) => {
    const item = copyOf("turn");
    item.querySelector(".asked").textContent = question;
    item.querySelector(".said").textContent = answer;
    return item;
  });
  at("turns").replaceChildren(...items);
}

function forgetTurns() {
  turns = [];
  showTurns();
}

function fill(request) {
  at("question").value = request.question;
  for (const name of ["formulation", "n_docs", "num_beams"]) if (request[name]) at(name).value = request[name];
  if (request.kb && request.kb !== at("kb").value) switchBase(request.kb);
}

function savedRequests() {
  try {
    const requests = JSON.parse(localStorage.getItem(HISTORY) ?? "[]");
    return Array.isArray(requests) ? requests : [];
  } catch {
    return [];
  }
}

function remember(request) {
  const same = (other) => JSON.stringify(other) === JSON.stringify(request);
  const all = [request, ...savedRequests().filter((other) => !same(other))].slice(0, HISTORY_LENGTH);
  localStorage.setItem(HISTORY, JSON.stringify(all));
  showHistory();
}

function showHistory() {
  const all = savedRequests();
  at("history").hidden = all.length === 0;
  const items = all.map((request) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "plain";
    button.textContent = request.question;
    button.addEventListener("click", () => {
      forgetTurns();
      fill(request);
      at("question").focus();
      ask();
    });
    const item = document.createElement("li");
    item.append(button);
    return item;
  });
  at("questions").replaceChildren(...items);
}

function switchBase(name) {
  at("kb").value = name;
  choose(at("kb").value);
  showBase();
}

async function showBase(first = false) {
  let base;
  try {
    base = await (await call("/v1/knowledge-base")).json();
  } catch (error) {
    at("base").textContent = error.message;
    return;
  }
  at("base").textContent =
    `${numbered(base.documents, "document")}, ${numbered(base.passages, "passage")}, version ${base.version}`;
  at("n_docs").max = base.limits.n_docs;
  at("num_beams").max = base.limits.num_beams;
  at("question").maxLength = base.limits.question_characters;
  if (first && base.names.length > 1) {
    at("kb").replaceChildren(...base.names.map((name) => new Option(name)));
    at("kb-line").hidden = false;
    choose(at("kb").value);
  }
  await showDocuments(base, showBase);
  if (first && !location.hash) fill({ question: at("question").value, formulation: base.formulation, ...base.defaults });
}

function showExpert(expert) {
  at("expert").checked = expert;
  document.body.classList.toggle("expert", expert);
  for (const view of views) view.redraw?.();
}

function fromLink() {
  const request = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  if (!request.question) return;
  forgetTurns();
  fill(request);
  ask();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
at("stop").addEventListener("click", () => running?.abort());
at("link").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(location.href);
    at("status").textContent = "Link copied.";
  } catch {
    at("status").textContent = "The browser does not allow copying. The link is in the address bar.";
  }
});
at("new").addEventListener("click", () => {
  forgetTurns();
  at("results").replaceChildren();
  at("link").hidden = true;
  at("status").textContent = "";
  at("question").value = "";
  at("question").focus();
});
at("forget").addEventListener("click", () => {
  localStorage.removeItem(HISTORY);
  showHistory();
  at("question").focus();
});
at("key").addEventListener("change", () => {
  saveKey();
  showBase(true);
});
at("kb").addEventListener("change", () => {
  at("new").click();
  switchBase(at("kb").value);
});
at("expert").addEventListener("change", () => {
  localStorage.setItem(EXPERT, at("expert").checked ? "1" : "");
  showExpert(at("expert").checked);
});
window.addEventListener("hashchange", fromLink);

showExpert(localStorage.getItem(EXPERT) === "1");
showHistory();
await showBase(true);
fromLink();
