// Fetches this page with the key, which a link cannot send. The page is parsed without running scripts.

import { showMarkdown } from "/static/document.js";

const KEY = "ragweave-key";
const at = (id) => document.getElementById(id);

async function open(key) {
  const response = await fetch(location.href, { headers: { Authorization: `Bearer ${key}` } });
  if (!response.ok) {
    at("error").textContent = (await response.json()).error.message;
    at("error").hidden = false;
    return;
  }
  sessionStorage.setItem(KEY, key);
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  document.title = page.title;
  document.body.replaceWith(page.body);
  showMarkdown();
}

at("open").addEventListener("submit", (event) => {
  event.preventDefault();
  open(at("key").value);
});
if (sessionStorage.getItem(KEY)) await open(sessionStorage.getItem(KEY));
