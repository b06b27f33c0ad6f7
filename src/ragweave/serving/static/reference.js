// The endpoints as the OpenAPI schema describes them.

const KEY = "ragweave-key"; // where the page for questions keeps it

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

// The schemas that a request or a response is made of, by their names.
function namesIn(value, schema, found = new Set()) {
  for (const [key, own] of Object.entries(value ?? {})) {
    if (key === "$ref") {
      const name = own.split("/").at(-1);
      if (!found.has(name)) namesIn(schema.components.schemas[name], schema, found.add(name));
    } else if (typeof own === "object") namesIn(own, schema, found);
  }
  return found;
}

const typeOf = (own) =>
  own.type ?? own.$ref?.split("/").at(-1) ?? (own.anyOf ?? []).map(typeOf).join(" or ") ?? "";

function fields(name, schema) {
  const own = schema.components.schemas[name];
  const rows = Object.entries(own.properties ?? {}).map(([field, is]) => {
    const needed = own.required?.includes(field) ? ", required" : "";
    return element("li", "", element("code", field), ` (${typeOf(is)}${needed}) ${is.description ?? ""}`);
  });
  return element("details", "", element("summary", name), element("p", own.description), element("ul", "", ...rows));
}

function endpoint(path, method, own, schema) {
  const parts = [element("h2", `${method.toUpperCase()} ${path}`), element("p", own.description ?? own.summary)];
  const kinds = [["Request", own.requestBody], ["Response", own.responses["200"]]];
  for (const [title, value] of kinds) {
    const names = [...namesIn(value, schema)];
    if (names.length) parts.push(element("h3", title), ...names.map((name) => fields(name, schema)));
  }
  const statuses = Object.entries(own.responses).filter(([status]) => status !== "200");
  if (statuses.length) {
    const rows = statuses.map(([status, is]) => element("li", "", element("code", status), ` ${is.description}`));
    parts.push(element("details", "", element("summary", "Errors"), element("ul", "", ...rows)));
  }
  return element("section", "", ...parts);
}

async function show() {
  const key = sessionStorage.getItem(KEY);
  const response = await fetch("/openapi.json", { headers: key ? { Authorization: `Bearer ${key}` } : {} });
  if (!response.ok) throw new Error((await response.json()).error.message);
  const schema = await response.json();
  const sections = Object.entries(schema.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, own]) => endpoint(path, method, own, schema)),
  );
  document.getElementById("endpoints").replaceChildren(...sections);
}

try {
  await show();
} catch (error) {
  document.getElementById("error").textContent = `${error.message} Give the key on the page for questions.`;
  document.getElementById("error").hidden = false;
}
document.getElementById("endpoints").setAttribute("aria-busy", "false");
