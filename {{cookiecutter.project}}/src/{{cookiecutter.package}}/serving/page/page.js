const element = (id) => document.getElementById(id);
const form = element("form");
const fields = new Map();
let card, contract, examples;
let turn = -1;
let untouched = "";

/** Make an element; text is always set as text, never parsed. */
function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

const spoken = (name) => name.replaceAll("_", " ");
const number = (value, maximumSignificantDigits = 5) =>
  new Intl.NumberFormat("en", { maximumSignificantDigits }).format(value);
const share = (value) => `${(100 * value).toFixed(1)} %`;

async function start() {
  const response = await fetch("model");
  const content = await response.json();
  if (!response.ok) return showNotice(content.error.message);
  ({ card, contract, examples } = content);
  contract.columns.filter((column) => column.kind !== "excluded").forEach(addField);
  showModel();
  showExample();
  element("another").hidden = examples.length < 2;
  for (const id of ["form", "results"]) element(id).hidden = false;
}

function showNotice(text) {
  element("notice-text").textContent = text;
  element("notice").hidden = false;
}

async function retry() {
  element("notice").hidden = true;
  await fetch("health/ready");
  if (!contract) await start();
}

async function attempt(step) {
  try {
    await step();
  } catch (error) {
    showNotice(`The service does not answer: ${error.message}`);
  }
}

function addField(column, position) {
  const id = `field-${position}`;
  const input = column.categories.length ? select(column) : entry(column);
  input.id = id;
  input.required = !column.nullable;
  input.setAttribute("aria-describedby", `${id}-hint ${id}-error`);
  const error = make("p", { className: "error", id: `${id}-error` });
  const field = make(
    "div",
    { className: "field" },
    make("label", { htmlFor: id, textContent: spoken(column.name) }),
    input,
    make("p", { className: "hint", id: `${id}-hint`, textContent: hint(column) }),
    error,
  );
  input.addEventListener("input", () => complain(column.name, ""));
  fields.set(column.name, { column, input, error });
  element("fields").append(field);
}

function select(column) {
  const options = column.categories.map((value) => make("option", { value, textContent: value }));
  const textContent = column.nullable ? "(missing)" : "Choose…";
  return make("select", {}, make("option", { value: "", textContent }), ...options);
}

function entry(column) {
  const step = "any";
  if (column.kind !== "datetime") {
    return make("input", { type: "number", step, inputMode: "decimal" });
  }
  const given = examples.map((example) => example.row[column.name]);
  const written = [column.minimum, column.maximum, ...given];
  const all = (pattern) =>
    !column.format && written.every((each) => each === null || pattern.test(each));
  if (all(/^\d{4}-\d\d-\d\d(T00:00:00)?(\.0+)?$/)) return make("input", { type: "date" });
  if (all(/^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,3})?)?$/)) {
    return make("input", { type: "datetime-local", step });
  }
  return make("input", { type: "text", spellcheck: false, autocomplete: "off" });
}

function hint(column) {
  const parts = [];
  const { minimum, maximum } = column;
  if (column.format) parts.push(`${column.format} or ISO 8601`);
  if (minimum !== null) parts.push(`${shortDate(minimum)} to ${shortDate(maximum)} in training`);
  if (column.nullable && !column.categories.length) parts.push("may be empty");
  return parts.join(", ");
}

const shortDate = (value) => String(value).replace(/T00:00:00$/, "").replace("T", " ");

function put({ column, input }, value) {
  if (value === null || value === undefined) input.value = "";
  else if (column.kind === "boolean") input.value = spelled(column, value);
  else if (input.type === "date") input.value = value.slice(0, 10);
  else input.value = value;
}

function spelled(column, value) {
  const lower = String(value).toLowerCase();
  const [no, yes] = column.categories;
  return ["true", yes.toLowerCase()].includes(lower) ? yes : no;
}

function value({ input }) {
  if (input.value.trim() === "") return null;
  return input.type === "number" ? Number(input.value) : input.value;
}

function complain(name, message) {
  const { input, error } = fields.get(name);
  error.textContent = message;
  if (message) input.setAttribute("aria-invalid", "true");
  else input.removeAttribute("aria-invalid");
}

function showExample() {
  turn = (turn + 1) % Math.max(examples.length, 1);
  const example = examples[turn];
  for (const [name, field] of fields) {
    put(field, example ? example.row[name] : field.column.example);
    complain(name, "");
  }
  untouched = JSON.stringify(formRow());
  answer(make("p", { className: "quiet", textContent: "Press Predict to ask the model." }));
}

const formRow = () => Object.fromEntries([...fields].map(([name, field]) => [name, value(field)]));

async function predict() {
  const row = formRow();
  for (const [name, { input }] of fields) {
    const kind = input.type === "number" ? "number" : "date";
    complain(name, input.validity.badInput ? `expected a ${kind}` : "");
  }
  if (focusOnError()) return;
  element("answer").setAttribute("aria-busy", "true");
  try {
    const response = await fetch("predict", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ rows: [row] }),
    });
    const content = await response.json();
    if (response.ok) showAnswer(content.predictions[0], truth(row));
    else showError(content.error);
  } finally {
    element("answer").removeAttribute("aria-busy");
  }
}

/** The truth belongs to the example only as long as nobody has changed a value. */
function truth(row) {
  return JSON.stringify(row) === untouched ? (examples[turn]?.truth ?? null) : null;
}

function focusOnError() {
  const wrong = [...fields.values()].find(({ input }) => input.hasAttribute("aria-invalid"));
  wrong?.input.focus();
  return wrong;
}

function showError({ message, details }) {
  let count = 0;
  for (const detail of details) {
    const name = detail.path.replace(/^rows\.0\./, "");
    if (!fields.has(name)) continue;
    complain(name, detail.message);
    count += 1;
  }
  const values = count === 1 ? "one value" : `${count} values`;
  const reason = count ? `${values} cannot be read` : message;
  answer(make("p", { className: "error", textContent: `No answer: ${reason}` }));
  focusOnError();
}

const answer = (...parts) => element("answer-body").replaceChildren(...parts);

function showAnswer({ prediction, probabilities, score, warnings }, known) {
  const regression = contract.task === "regression";
  const { subject, label } = heading(prediction);
  const parts = [
    make("p", { className: "subject", textContent: subject }),
    make("p", { className: "prediction", id: "prediction", textContent: label }),
  ];
  if (known !== null) parts.push(truthLine(prediction, known, regression));
  if (probabilities) parts.push(shares(probabilities));
  if (regression) parts.push(scale(prediction));
  if (score !== null) {
    const text = `Distance from what is usual: ${number(score)}`;
    parts.push(make("p", { className: "truth quiet", textContent: text }));
  }
  if (warnings.length) parts.push(warningBox(warnings));
  answer(...parts);
  element("answer").scrollIntoView({ block: "nearest" });
}

function heading(prediction) {
  if (contract.target) {
    const label = contract.task === "regression" ? number(prediction) : String(prediction);
    return { subject: spoken(contract.target.name), label };
  }
  if (typeof prediction === "string") return { subject: "This row is an", label: prediction };
  return { subject: "This row belongs to", label: `Group ${prediction}` };
}

function truthLine(prediction, known, regression) {
  const off = `${number(known)}, off by ${number(Math.abs(prediction - known))}`;
  const right = prediction === known;
  const verdict = right ? "Correct, the" : "Wrong, the";
  return make("p", {
    className: regression ? "truth quiet" : `truth ${right ? "right" : "wrong"}`,
    textContent: regression ? `The true value is ${off}` : `${verdict} true answer is ${known}`,
  });
}

function shares(probabilities) {
  const sorted = Object.entries(probabilities).sort(([, a], [, b]) => b - a);
  const rows = sorted.slice(0, 8).map(([name, probability]) => {
    const fill = make("div", { className: "fill" });
    fill.style.width = `${100 * probability}%`;
    return make(
      "li",
      { className: "share" },
      make("span", { textContent: name }),
      make("span", { textContent: share(probability) }),
      make("div", { className: "track", ariaHidden: "true" }, fill),
    );
  });
  const rest = sorted.slice(8).reduce((sum, [, probability]) => sum + probability, 0);
  if (sorted.length > 8) {
    const text = `${sorted.length - 8} more, together ${share(rest)}`;
    rows.push(make("li", { className: "quiet", textContent: text }));
  }
  return make("ul", { className: "shares", ariaLabel: "Probabilities" }, ...rows);
}

function scale(prediction) {
  const { minimum, maximum } = contract.target;
  const mark = make("div", { className: "mark" });
  const place = maximum > minimum ? (prediction - minimum) / (maximum - minimum) : 0.5;
  mark.style.left = `${100 * Math.min(Math.max(place, 0), 1)}%`;
  const ends = [number(minimum), "range in training", number(maximum)];
  return make(
    "div",
    { className: "scale" },
    make("div", { className: "track", ariaHidden: "true" }, mark),
    make("div", { className: "ends" }, ...ends.map((textContent) => make("span", { textContent }))),
  );
}

function warningBox(warnings) {
  const lines = warnings.map((textContent) => make("li", { textContent }));
  return make(
    "div",
    { className: "warnings" },
    make("strong", { textContent: "Unlike the training data" }),
    make("ul", {}, ...lines),
  );
}

function showModel() {
  document.title = card.name;
  element("name").textContent = card.name;
  const columns = `${fields.size} ${fields.size === 1 ? "value" : "values"}`;
  element("purpose").textContent = contract.target
    ? `Predicts ${spoken(contract.target.name)} from ${columns}`
    : `Groups rows of ${columns}`;
  const facts = {
    Version: card.version,
    Estimator: spoken(card.estimator),
    "Trained on": `${number(card.data.training_rows)} rows of ${card.data.source.split("/").pop()}`,
  };
  for (const [name, text] of Object.entries(facts)) {
    element("facts").append(make("dt", { textContent: name }), make("dd", { textContent: text }));
  }
  element("metrics").append(metricsTable());
}

function metricsTable() {
  const columns = [card.metrics];
  const head = ["Metric", "Model"];
  if (Object.keys(card.baseline ?? {}).length) {
    columns.push(card.baseline);
    head.push("Baseline");
  }
  const shown = (value) => (typeof value === "number" ? number(value, 4) : "–");
  const cell = (value) => make("td", { textContent: shown(value) });
  const rows = Object.keys(card.metrics)
    .filter((name) => typeof card.metrics[name] === "number")
    .map((name) => {
      const title = make("th", { scope: "row", textContent: spoken(name) });
      return make("tr", {}, title, ...columns.map((column) => cell(column[name])));
    });
  const titles = head.map((textContent) => make("th", { scope: "col", textContent }));
  return make(
    "table",
    {},
    make("caption", { textContent: `On ${number(card.data.test_rows)} rows that it has not seen` }),
    make("thead", {}, make("tr", {}, ...titles)),
    make("tbody", {}, ...rows),
  );
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(predict);
});
element("another").addEventListener("click", showExample);
element("retry").addEventListener("click", () => attempt(retry));
attempt(start);
