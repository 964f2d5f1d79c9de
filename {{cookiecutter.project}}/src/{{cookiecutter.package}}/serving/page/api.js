import { element, line, make } from "./dom.js";

const KEY = "api-key";
let asking = null;

/** An answer that is an error: its status, what it said, and when to come back. */
export class Refusal extends Error {
  constructor(response, { message, details } = {}) {
    super(message ?? `the service answered ${response.status}`);
    this.status = response.status;
    this.details = details ?? [];
    this.after = Number(response.headers.get("Retry-After"));
  }
}

/** Get, or post where there is a body; the service may want a key, which is then asked for. */
export async function call(path, body, signal) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    const options = { headers, signal };
    if (body !== undefined) {
      headers["Content-Type"] = "application/json";
      Object.assign(options, { method: "POST", body: JSON.stringify(body) });
    }
    const response = await fetch(path, options);
    const content = await response.json().catch(() => ({}));
    if (response.ok) return { content, response };
    if (response.status !== 401) throw new Refusal(response, content.error);
    asking ??= askForKey(key).finally(() => (asking = null));
    await asking;
  }
}

/** Show a field for the key; it is kept until the tab is closed. */
function askForKey(refused) {
  const input = make("input", { id: "key", type: "password", required: true, autocomplete: "off" });
  const said = refused ? "This key is not accepted." : "This service wants an API key.";
  const form = make(
    "form",
    { id: "key-form", className: "notice" },
    line("", said),
    make("label", { htmlFor: "key", textContent: "API key" }),
    input,
    line("hint", "Kept in this tab only, and sent to this service only."),
    make("button", { className: "primary", textContent: "Use this key" }),
  );
  element("main").prepend(form);
  input.focus();
  return new Promise((resolve) => {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEY, input.value.trim());
      form.remove();
      resolve();
    });
  });
}
