// Shows the OpenAPI schema.

const KEY = "ragweave-key"; // where the question page stores it

function element(name, text, ...children) {
  const node = document.createElement(name);
  if (text) node.textContent = text;
  node.append(...children);
  return node;
}

// The names of all schemas that a request or a response refers to.
function schemaNames(value, schema, names = new Set()) {
  for (const [key, part] of Object.entries(value ?? {})) {
    if (key === "$ref") {
      const name = part.split("/").at(-1);
      if (!names.has(name)) schemaNames(schema.components.schemas[name], schema, names.add(name));
    } else if (typeof part === "object") schemaNames(part, schema, names);
  }
  return names;
}

const typeOf = (field) =>
  field.type ?? field.$ref?.split("/").at(-1) ?? (field.anyOf ?? []).map(typeOf).join(" or ") ?? "";

function fields(name, schema) {
  const model = schema.components.schemas[name];
  const rows = Object.entries(model.properties ?? {}).map(([field, property]) => {
    const required = model.required?.includes(field) ? ", required" : "";
    return element("li", "", element("code", field), ` (${typeOf(property)}${required}) ${property.description ?? ""}`);
  });
  return element("details", "", element("summary", name), element("p", model.description), element("ul", "", ...rows));
}

function endpoint(path, method, operation, schema) {
  const parts = [element("h2", `${method.toUpperCase()} ${path}`), element("p", operation.description ?? operation.summary)];
  const kinds = [["Request", operation.requestBody], ["Response", operation.responses["200"]]];
  for (const [title, value] of kinds) {
    const names = [...schemaNames(value, schema)];
    if (names.length) parts.push(element("h3", title), ...names.map((name) => fields(name, schema)));
  }
  const statuses = Object.entries(operation.responses).filter(([status]) => status !== "200");
  if (statuses.length) {
    const rows = statuses.map(([status, response]) => element("li", "", element("code", status), ` ${response.description}`));
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
    Object.entries(methods).map(([method, operation]) => endpoint(path, method, operation, schema)),
  );
  document.getElementById("endpoints").replaceChildren(...sections);
}

try {
  await show();
} catch (error) {
  document.getElementById("error").textContent = `${error.message} Enter the API key on the question page first.`;
  document.getElementById("error").hidden = false;
}
document.getElementById("endpoints").setAttribute("aria-busy", "false");
