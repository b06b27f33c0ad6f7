// The page: asks questions and shows streamed answers with the provenance of each token.
// Texts are inserted as text nodes only, so HTML in a document is never interpreted.

import { eventsOf } from "/static/events.js";
import { copyOf, ResultView } from "/static/result.js";

const NAMES = { token: "RAG-Token", sequence: "RAG-Sequence" };
const HISTORY = "ragweave-asked";
const KEY = "ragweave-key";
const HISTORY_LENGTH = 20;
const MOST_TURNS = 8; // the service reads no more

const at = (id) => document.getElementById(id);
const form = at("ask");
let running = null; // aborts the running requests
let turns = []; // earlier questions, as they stand alone, with their answers

function headers() {
  const key = at("key").value || sessionStorage.getItem(KEY) || "";
  return { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
}

async function errorMessage(response) {
  if (response.status === 401) {
    at("key-line").hidden = false;
    at("key").focus();
  }
  const retry = response.headers.get("Retry-After");
  try {
    return (await response.json()).error.message;
  } catch {
    return `The service answered ${response.status}.${retry ? ` Try again in ${retry} s.` : ""}`;
  }
}

function fail(message) {
  at("error").textContent = message;
  at("error").hidden = false;
}

// Stream the answer to one request under one formulation into a view.
async function answer(request, formulation, view, signal) {
  const history = turns.slice(-MOST_TURNS);
  const body = { ...request, formulation, history, stream: true };
  const response = await fetch("/v1/answers", { method: "POST", headers: headers(), body: JSON.stringify(body), signal });
  if (!response.ok) throw new Error(await errorMessage(response));
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
  };
  if (!request.question) return;
  running?.abort();
  const controller = (running = new AbortController());
  if (at("key").value) sessionStorage.setItem(KEY, at("key").value);
  at("error").hidden = true;
  at("status").textContent = "Searching and answering …";
  at("stop").hidden = false;
  history.replaceState(null, "", `#${new URLSearchParams(request)}`);
  at("link").disabled = false;
  const both = request.formulation === "both";
  const formulations = both ? ["token", "sequence"] : [request.formulation];
  const views = formulations.map((formulation) => new ResultView(NAMES[formulation]));
  at("results").replaceChildren(...views.map((view) => view.element));
  at("results").classList.toggle("both", both);
  showTurns();
  const started = performance.now();
  const work = formulations.map((formulation, i) => answer(request, formulation, views[i], controller.signal));
  const results = await Promise.allSettled(work);
  views.forEach((view) => view.end());
  for (const view of views) if (view.isEmpty) view.element.remove();
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
    fail(failed.reason instanceof TypeError ? "The service cannot be reached. Is it running?" : failed.reason.message);
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

async function showBase(first = false) {
  let response;
  try {
    response = await fetch("/v1/knowledge-base", { headers: headers() });
  } catch {
    at("base").textContent = "Knowledge base: the service cannot be reached";
    return;
  }
  if (!response.ok) {
    at("base").textContent = `Knowledge base: ${await errorMessage(response)}`;
    return;
  }
  const base = await response.json();
  at("base").textContent =
    `Knowledge base: version ${base.version}, ${base.passages.toLocaleString("en")} passages from ` +
    `${base.documents.toLocaleString("en")} documents`;
  at("n_docs").max = base.limits.n_docs;
  at("num_beams").max = base.limits.num_beams;
  at("question").maxLength = base.limits.question_characters;
  if (first && !location.hash) fill({ question: at("question").value, formulation: base.formulation, ...base.defaults });
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
  sessionStorage.setItem(KEY, at("key").value);
  showBase(true);
});
window.addEventListener("hashchange", fromLink);

showHistory();
await showBase(true);
fromLink();
