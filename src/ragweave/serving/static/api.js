// What every part of the page needs to call the service.

const KEY = "ragweave-key";
const MARKDOWN = /\.(md|markdown)$/i;
let base = ""; // the name of the knowledge base, if there are several

export const at = (id) => document.getElementById(id);
export const copyOf = (id) => at(id).content.firstElementChild.cloneNode(true);
export const isMarkdown = (source) => MARKDOWN.test(source);
export const choose = (name) => (base = name);
export const numbered = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

export function address(path, parameters = {}) {
  const query = new URLSearchParams({ ...parameters, ...(base && { kb: base }) });
  return query.size ? `${path}?${query}` : path;
}

export function saveKey() {
  if (at("key").value) sessionStorage.setItem(KEY, at("key").value);
}

export function headers() {
  const key = at("key").value || sessionStorage.getItem(KEY) || "";
  return { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
}

// The message of a response that is an error; asks for the key if one is missing.
export function failure(status, body, retry = "") {
  if (status === 401) {
    at("key-line").hidden = false;
    at("key").focus();
  }
  try {
    return JSON.parse(body).error.message;
  } catch {
    return `The service answered ${status}.${retry ? ` Try again in ${retry} s.` : ""}`;
  }
}

export async function call(path, options = {}, parameters = {}) {
  let response;
  try {
    response = await fetch(address(path, parameters), { headers: headers(), ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The service cannot be reached. Is it running?");
  }
  if (!response.ok) throw new Error(failure(response.status, await response.text(), response.headers.get("Retry-After")));
  return response;
}

export function showError(message) {
  at("error").textContent = message;
  at("error").hidden = !message;
}
