// The page: asks, shows the answer as it comes, and where each of its tokens came from.
// All texts become text nodes; nothing that a document says is ever read as HTML.

import { eventsOf } from "/static/events.js";
import { ResultView } from "/static/result.js";

const NAMES = { token: "RAG-Token", sequence: "RAG-Sequence" };
const ASKED = "ragweave-asked";
const KEY = "ragweave-key";
const REMEMBERED = 20;

const at = (id) => document.getElementById(id);
const form = at("ask");
let running = null; // what stops the requests that are under way

function headers() {
  const key = at("key").value || sessionStorage.getItem(KEY) || "";
  return { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
}

async function refusal(response) {
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

// Answer one question under one formulation, and show it as it comes.
async function answer(asked, formulation, view, signal) {
  const body = { question: asked.question, n_docs: asked.n_docs, num_beams: asked.num_beams, formulation, stream: true };
  const response = await fetch("/v1/answers", { method: "POST", headers: headers(), body: JSON.stringify(body), signal });
  if (!response.ok) throw new Error(await refusal(response));
  for await (const { name, data } of eventsOf(response)) {
    if (name === "passages") view.showPassages(data.passages);
    else if (name === "token") view.append(data.text);
    else if (name === "answer") return view.finish(data);
    else if (name === "error") throw new Error(data.error.message);
  }
  throw new Error("The answer broke off: the service may have stopped. Ask again.");
}

async function ask() {
  const asked = {
    question: at("question").value.trim(),
    formulation: at("formulation").value,
    n_docs: at("n_docs").valueAsNumber,
    num_beams: at("num_beams").valueAsNumber,
  };
  if (!asked.question) return;
  running?.abort();
  const own = (running = new AbortController());
  if (at("key").value) sessionStorage.setItem(KEY, at("key").value);
  at("error").hidden = true;
  at("status").textContent = "Searching and answering …";
  at("stop").hidden = false;
  history.replaceState(null, "", `#${new URLSearchParams(asked)}`);
  at("link").disabled = false;
  const both = asked.formulation === "both";
  const formulations = both ? ["token", "sequence"] : [asked.formulation];
  const views = formulations.map((formulation) => new ResultView(NAMES[formulation]));
  at("results").replaceChildren(...views.map((view) => view.element));
  at("results").classList.toggle("both", both);
  const began = performance.now();
  const work = formulations.map((formulation, place) => answer(asked, formulation, views[place], own.signal));
  const ends = await Promise.allSettled(work);
  views.forEach((view) => view.end());
  for (const view of views) if (view.isEmpty) view.element.remove();
  if (running !== own) return; // another question was asked meanwhile
  running = null;
  at("stop").hidden = true;
  const failed = ends.find((end) => end.status === "rejected");
  if (!failed) {
    at("status").textContent = `Answered in ${((performance.now() - began) / 1000).toFixed(1)} s.`;
    remember(asked);
    showBase();
  } else if (failed.reason.name === "AbortError") {
    at("status").textContent = "Stopped.";
  } else {
    at("status").textContent = "";
    fail(failed.reason instanceof TypeError ? "The service cannot be reached: is it running?" : failed.reason.message);
  }
}

function fill(asked) {
  at("question").value = asked.question;
  for (const name of ["formulation", "n_docs", "num_beams"]) if (asked[name]) at(name).value = asked[name];
}

function remembered() {
  try {
    const found = JSON.parse(localStorage.getItem(ASKED) ?? "[]");
    return Array.isArray(found) ? found : [];
  } catch {
    return [];
  }
}

function remember(asked) {
  const same = (one) => JSON.stringify(one) === JSON.stringify(asked);
  const all = [asked, ...remembered().filter((one) => !same(one))].slice(0, REMEMBERED);
  localStorage.setItem(ASKED, JSON.stringify(all));
  showHistory();
}

function showHistory() {
  const all = remembered();
  at("history").hidden = all.length === 0;
  const items = all.map((asked) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "plain";
    button.textContent = asked.question;
    button.addEventListener("click", () => {
      fill(asked);
      at("question").focus();
      ask();
    });
    const item = document.createElement("li");
    item.append(button);
    return item;
  });
  at("asked").replaceChildren(...items);
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
    at("base").textContent = `Knowledge base: ${await refusal(response)}`;
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
  const asked = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  if (!asked.question) return;
  fill(asked);
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
    at("status").textContent = "The link is copied.";
  } catch {
    at("status").textContent = "Copying is not allowed here: the link is in the address bar.";
  }
});
at("forget").addEventListener("click", () => {
  localStorage.removeItem(ASKED);
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
