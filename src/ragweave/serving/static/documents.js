// The documents of the knowledge base: listed, uploaded with progress, read again and deleted.

import { address, at, call, copyOf, failure, headers, numbered, saveKey, showError } from "/static/api.js";

let mayChange = false;
let changed = () => {};

// Show the panel; `onChange` runs after each change.
export function showDocuments(base, onChange) {
  mayChange = base.changes !== "nobody";
  changed = onChange;
  at("drop").hidden = !mayChange;
  at("documents-title").textContent = `Documents (${base.documents.toLocaleString("en")})`;
  return at("documents").open ? list() : null;
}

async function list() {
  let found;
  try {
    found = await (await call("/v1/sources", {}, { search: at("search").value })).json();
  } catch (error) {
    return showError(error.message);
  }
  at("sources").replaceChildren(...found.sources.map(item));
  const hidden = found.total - found.sources.length;
  at("more").textContent = found.total ? (hidden ? `${numbered(hidden, "more")} not shown. Search for a name.` : "") : "None.";
}

function item(source) {
  const element = copyOf("source-item");
  const link = element.querySelector("a");
  link.textContent = source.name;
  link.href = address("/documents", { source: source.id });
  element.querySelector(".count").textContent = numbered(source.passages, "passage");
  const [again, remove] = element.querySelectorAll("button");
  again.hidden = !mayChange || source.uploaded;
  remove.hidden = !mayChange;
  again.setAttribute("aria-label", `Read ${source.name} again`);
  remove.setAttribute("aria-label", `Delete ${source.name}`);
  again.addEventListener("click", () => change(again, source, "PUT", `${source.name} was read again.`));
  remove.addEventListener("click", () => {
    if (confirm(`Delete ${source.name} from the knowledge base?`)) change(remove, source, "DELETE", `${source.name} was deleted.`);
  });
  return element;
}

async function change(button, source, method, done) {
  button.disabled = true;
  showError("");
  try {
    await call(`/v1/sources/${source.id}`, { method });
    at("status").textContent = done;
    at("search").focus();
    await changed();
  } catch (error) {
    showError(error.message);
  }
  button.disabled = false;
}

async function upload(files) {
  showError("");
  saveKey();
  for (const file of files) {
    const row = copyOf("upload-item");
    row.querySelector(".name").textContent = file.name;
    at("uploads").append(row);
    const error = await send(file, row.querySelector("progress"), row.querySelector(".state"));
    if (error) row.querySelector(".state").textContent = error;
    else row.remove();
  }
  await changed();
}

// Fetch tells nothing about the progress of a body, so this is the older way. Returns the error, if there is one.
function send(file, progress, state) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("PUT", address(`/v1/files/${encodeURIComponent(file.name)}`));
    for (const [name, value] of Object.entries(headers())) if (name === "Authorization") request.setRequestHeader(name, value);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.addEventListener("progress", ({ loaded, total }) => (progress.value = loaded / total));
    request.upload.addEventListener("load", () => {
      progress.removeAttribute("value");
      state.textContent = "Reading …";
    });
    request.addEventListener("load", () => {
      const failed = request.status >= 400;
      progress.hidden = failed;
      if (!failed) at("status").textContent = `${file.name} was added.`;
      resolve(failed ? failure(request.status, request.responseText) : null);
    });
    request.addEventListener("error", () => resolve("The service cannot be reached, or the file is too large."));
    request.send(file);
  });
}

at("documents").addEventListener("toggle", () => at("documents").open && list());
at("search").addEventListener("input", list);
at("files").addEventListener("change", async () => {
  await upload([...at("files").files]);
  at("files").value = "";
});
// A file that is dropped beside the field would otherwise replace the page.
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
window.addEventListener("dragenter", () => {
  if (mayChange) at("documents").open = true;
});
for (const name of ["dragover", "dragleave", "drop"]) {
  at("drop").addEventListener(name, (event) => at("drop").classList.toggle("over", event.type === "dragover"));
}
at("drop").addEventListener("drop", (event) => upload([...event.dataTransfer.files]));
