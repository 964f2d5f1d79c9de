import { call } from "./api.js";
import { element, line, make, number, spoken, table } from "./dom.js";
import { makeField } from "./fields.js";
import { bars, strip } from "./plots.js";

const REMEMBERED = 8;
const form = element("form");
const fields = new Map();
let contract, examples, answered, takesFeedback;
let known = { row: "", truth: null };
let history = [];

/** Build the form of a model; `seen` is told which version answered. */
export function showForm(model, feedback, seen) {
  ({ contract, examples } = model);
  answered = seen;
  takesFeedback = feedback && contract.target !== null;
  fields.clear();
  for (const [i, column] of features(contract).entries()) {
    fields.set(column.name, makeField(column, i, examples));
  }
  element("fields").replaceChildren(...[...fields.values()].map((field) => field.node));
  const buttons = examples.map((example, i) => {
    const button = make("button", { type: "button", textContent: i + 1 });
    button.setAttribute("aria-label", `Fill in example ${i + 1}`);
    button.addEventListener("click", () => fill(example.row, example.truth));
    return button;
  });
  element("examples").replaceChildren(...buttons);
  element("examples").parentNode.hidden = examples.length < 2;
  history = [];
  showHistory();
  const typical = [...fields.values()].map(({ column }) => [column.name, column.example]);
  if (examples.length) fill(examples[0].row, examples[0].truth);
  else fill(Object.fromEntries(typical), null);
}

export const features = ({ columns }) => columns.filter(({ kind }) => kind !== "excluded");

function fill(row, truth = null) {
  for (const [name, field] of fields) {
    field.write(row[name]);
    field.complain("");
  }
  known = { row: JSON.stringify(formRow()), truth };
  answer(line("quiet", "Press Predict to ask the model."));
}

const formRow = () => Object.fromEntries([...fields].map(([name, field]) => [name, field.read()]));

export async function predict() {
  for (const field of fields.values()) {
    const kind = field.column.kind === "datetime" ? "date" : "number";
    field.complain(field.isUnreadable() ? `expected a ${kind}` : "");
  }
  if (focusOnError()) return;
  const row = formRow();
  element("answer").setAttribute("aria-busy", "true");
  const start = performance.now();
  try {
    const { content, response } = await call("predict", { rows: [row] });
    const request = content.request_id ?? response.headers.get("x-request-id");
    const latency = performance.now() - start;
    showAnswer(row, content.predictions[0], { latency, request, version: content.model.version });
    answered(content.model.version);
  } catch (error) {
    if (error.status !== 422) throw error;
    showWrong(error);
  } finally {
    element("answer").removeAttribute("aria-busy");
  }
}

function focusOnError() {
  const wrong = [...fields.values()].find((field) => field.isWrong());
  wrong?.focus();
  return wrong;
}

function showWrong({ message, details }) {
  let count = 0;
  for (const detail of details) {
    const field = fields.get(detail.path.replace(/^rows\.0\./, ""));
    field?.complain(detail.message);
    count += Boolean(field);
  }
  const values = count === 1 ? "one value" : `${count} values`;
  answer(line("error", `No answer: ${count ? `${values} cannot be read` : message}`));
  focusOnError();
}

function answer(...parts) {
  element("answer-body").replaceChildren(...parts);
  element("feedback").replaceChildren();
}

function showAnswer(row, given, { latency, request, version }) {
  const { prediction, probabilities, score, warnings } = given;
  const { subject, label } = heading(prediction);
  const parts = [line("subject", subject), make("p", { id: "prediction", textContent: label })];
  // The truth belongs to the example only as long as nobody has changed a value.
  if (known.truth !== null && JSON.stringify(row) === known.row) {
    parts.push(verdict(prediction, known.truth));
  }
  if (probabilities) parts.push(shares(probabilities));
  if (contract.task === "regression") parts.push(scale(prediction));
  if (score !== null) parts.push(line("quiet", `Distance from what is usual: ${number(score)}`));
  if (warnings.length) parts.push(warningBox(warnings));
  const facts = [milliseconds(latency), `version ${version}`, request && `request ${request}`];
  parts.push(line("facts", facts.filter(Boolean).join(" · ")));
  answer(...parts);
  if (takesFeedback && given.id) element("feedback").append(feedbackForm(given.id));
  history = [{ row, label, latency }, ...history].slice(0, REMEMBERED);
  showHistory();
  element("answer").scrollIntoView({ block: "nearest" });
}

const milliseconds = (value) => `${number(value, value < 100 ? 2 : 3)} ms`;

function heading(prediction) {
  if (contract.target) {
    const label = contract.task === "regression" ? number(prediction) : String(prediction);
    return { subject: spoken(contract.target.name), label };
  }
  if (typeof prediction === "string") return { subject: "This row is an", label: prediction };
  return { subject: "This row belongs to", label: `Group ${prediction}` };
}

function verdict(prediction, truth) {
  if (contract.task === "regression") {
    const off = `${number(truth)}, off by ${number(Math.abs(prediction - truth))}`;
    return line("truth quiet", `The true value is ${off}`);
  }
  const isRight = prediction === truth;
  const text = `${isRight ? "Correct, the" : "Wrong, the"} true answer is ${truth}`;
  return line(`truth ${isRight ? "right" : "wrong"}`, text);
}

function shares(probabilities) {
  const sorted = Object.entries(probabilities).sort(([, a], [, b]) => b - a);
  return bars("Probabilities", "", sorted.map(([name, value]) => ({ name, value })), 1);
}

function scale(prediction) {
  const { minimum, maximum } = contract.target;
  const label = `Within ${number(minimum)} to ${number(maximum)}, the range in training`;
  return strip(label, [prediction], minimum, maximum, null, "range in training");
}

function warningBox(warnings) {
  const title = make("strong", {}, "Unlike the training data");
  const list = make("ul", {}, ...warnings.map((textContent) => make("li", { textContent })));
  return make("div", { className: "warnings" }, title, list);
}

/** What was asked before, each with what had been changed since the question before it. */
function showHistory() {
  element("history").hidden = history.length < 2;
  const rows = history.map(({ row, label, latency }, i) => {
    const before = history[i + 1]?.row;
    const changed = before ? Object.keys(row).filter((name) => row[name] !== before[name]) : [];
    const words = changed.slice(0, 3).map((name) => `${spoken(name)}: ${row[name] ?? "missing"}`);
    if (changed.length > 3) words.splice(2, 1, `and ${changed.length - 2} more`);
    const again = make("button", { type: "button", className: "link", textContent: label });
    again.setAttribute("aria-label", `${label}: fill in this row again`);
    again.addEventListener("click", () => fill(row));
    return [again, before ? words.join(", ") || "nothing" : "–", milliseconds(latency)];
  });
  const caption = "Asked so far: an answer fills its row in again";
  element("history").replaceChildren(table(caption, ["Answer", "Changed", "Time"], rows));
}

function feedbackForm(id) {
  const { classes } = contract.target;
  const options = classes.map((label, value) => make("option", { value, textContent: label }));
  const none = make("option", { value: "", textContent: "Choose…" });
  const input = classes.length
    ? make("select", { id: "truth", required: true }, none, ...options)
    : make("input", { id: "truth", type: "number", step: "any", required: true });
  const said = make("p", { className: "hint", role: "status" });
  const label = make("label", { htmlFor: "truth", textContent: "What was it really?" });
  const button = make("button", { textContent: "Record" });
  const node = make("form", {}, label, make("div", { className: "beside" }, input, button), said);
  node.addEventListener("submit", async (event) => {
    event.preventDefault();
    const truth = classes.length ? classes[input.value] : Number(input.value);
    try {
      await call("feedback", { truths: [{ prediction_id: id, label: truth }] });
      said.textContent = `Recorded: ${truth}`;
    } catch (error) {
      said.textContent = `Not recorded: ${error.message}`;
    }
  });
  return node;
}
