import { call } from "./api.js";
import { decode, read, value, write } from "./csv.js";
import { count, element, line, make, number, share } from "./dom.js";
import { features } from "./single.js";

const MOST_BYTES = 100e6;
const REQUEST_BYTES = 250e3;
const REQUEST_ROWS = 1000;
const PATIENCE = 20;
const PAGE = 50;
const whole = (value) => number(value, 21);
const SHOWN = {
  "all rows": () => true,
  "rows with warnings": ({ given }) => given?.warnings.length,
  "rows without an answer": ({ given }) => !given,
};
const TURNS = { first: () => 0, previous: (n) => n - 1, next: (n) => n + 1, last: () => Infinity };
let contract, examples, answered, file, running;
let page = 0;

/** Take files for a model; `seen` is told which version answered. */
export function takeFiles(model, seen) {
  ({ contract, examples } = model);
  answered = seen;
  element("batch-columns").textContent = features(contract).map(({ name }) => name).join(", ");
}

/** Read a file and answer its rows; say what cannot be read. */
async function start(chosen) {
  running?.abort();
  const { signal } = (running = new AbortController());
  element("batch-result").hidden = true;
  element("batch-alert").textContent = "";
  try {
    if (chosen.size > MOST_BYTES) throw new Error("it is over 100 MB, use the score command");
    const found = read(decode(await chosen.arrayBuffer()), features(contract));
    if (!found.rows.length) throw new Error("there is no row under its first line");
    const rows = found.rows.map((cells, i) => ({ place: i + 1, cells, ...asked(cells, found) }));
    file = { ...found, rows, name: chosen.name };
  } catch (error) {
    element("batch-alert").textContent = `${chosen.name} cannot be used: ${error.message}`;
    return;
  }
  await run(signal);
}

/** What is sent for a row of the file, or why nothing is. */
function asked(cells, { header, places, decimal }) {
  if (cells.length !== header.length) {
    return { error: `${count(cells.length, "field")} under ${count(header.length, "heading")}` };
  }
  const values = {};
  for (const [i, column] of features(contract).entries()) {
    if (places[i] >= 0) values[column.name] = value(cells[places[i]], column, decimal);
  }
  return { values };
}

async function run(signal) {
  const begin = performance.now();
  const { rows } = file;
  for (const id of ["batch-result", "batch-running"]) element(id).hidden = false;
  element("batch-summary").replaceChildren();
  element("shown").selectedIndex = page = 0;
  let stop = "";
  try {
    await answerAll(rows, signal, (done) => {
      element("progress").value = done / rows.length;
      element("progress-text").textContent = `${whole(done)} of ${count(rows.length, "row")}`;
      showRows();
    });
  } catch (error) {
    stop = signal.aborted ? "Stopped. " : `Stopped: ${error.message}. `;
  }
  if (running.signal !== signal) return;
  element("batch-running").hidden = true;
  element("batch-summary").append(...summary((performance.now() - begin) / 1000, stop));
  showRows();
}

/**
 * Ask for all rows in pieces.
 *
 * A piece that is too large is halved. Rows that are refused get the reason, and the others of
 * their piece are asked for again without them.
 */
async function answerAll(rows, signal, report) {
  const bytes = JSON.stringify(rows.slice(0, 50).map((row) => row.values)).length / 50;
  let most = Math.min(Math.max(Math.floor(REQUEST_BYTES / bytes), 1), REQUEST_ROWS);
  let size = most;
  let waits = 0;
  for (let at = 0; at < rows.length; signal.throwIfAborted()) {
    const part = rows.slice(at, at + size).filter((row) => !row.error);
    try {
      if (part.length) await answerPart(part, signal);
      at += size;
      size = Math.min(2 * size, most);
      waits = 0;
      report(Math.min(at, rows.length));
    } catch (error) {
      const named = (error.details ?? []).filter(({ path }) => /^rows\.\d/.test(path));
      if (error.status === 422 && named.length) {
        for (const { path, message } of named) refuse(part, path, message);
        size = Math.max(size >> 1, 20);
      } else if (error.status === 413) {
        if (part.length === 1) part[0].error = error.message;
        else most = size = part.length >> 1;
      } else if (error.after && (waits += 1) <= PATIENCE) {
        await new Promise((resolve) => setTimeout(resolve, 1000 * Math.min(error.after, 10)));
      } else throw error;
    }
  }
}

async function answerPart(part, signal) {
  const { content } = await call("predict", { rows: part.map((row) => row.values) }, signal);
  content.predictions.forEach((given, i) => (part[i].given = given));
  answered(content.model.version);
}

function refuse(part, path, message) {
  const [, place, column] = path.match(/^rows\.(\d+)\.?(.*)$/s);
  const reason = column ? `${column}: ${message}` : message;
  part[place].error = part[place].error ? `${part[place].error}; ${reason}` : reason;
}

/** The name of what is shown beside a prediction, if there is anything. */
function strength() {
  if (contract.task === "clustering") return "distance";
  return contract.task === "regression" ? null : "probability";
}

function showRows() {
  const chosen = file.rows.filter(Object.values(SHOWN)[element("shown").selectedIndex]);
  const last = Math.max(Math.ceil(chosen.length / PAGE) - 1, 0);
  page = Math.min(page, last);
  const shown = chosen.slice(page * PAGE, (page + 1) * PAGE);
  const [from, to] = [page * PAGE + 1, page * PAGE + shown.length].map(whole);
  element("page").textContent = to === "0" ? "none" : `${from} to ${to} of ${whole(chosen.length)}`;
  element("first").disabled = element("previous").disabled = page === 0;
  element("next").disabled = element("last").disabled = page === last;
  const hasNotes = file.rows.some(note);
  const titles = ["row", "prediction", strength(), hasNotes && "note"];
  const heads = [...titles.filter(Boolean), ...file.header];
  const cells = heads.map((textContent) => make("th", { scope: "col", textContent }));
  element("batch-head").replaceChildren(make("tr", {}, ...cells));
  element("batch-body").replaceChildren(...shown.map((row) => tableRow(row, hasNotes)));
}

const note = ({ given, error }) => error ?? given?.warnings.join("; ");

function tableRow(row, hasNotes) {
  const { given, error, cells, place } = row;
  const cell = (textContent, className = "") => make("td", { className, textContent });
  const parts = [make("th", { scope: "row", textContent: whole(place) })];
  if (given) {
    const { prediction, probabilities, score } = given;
    const isNumber = contract.task === "regression";
    parts.push(cell(isNumber ? number(prediction) : String(prediction), "given"));
    if (probabilities) parts.push(cell(share(probabilities[prediction])));
    else if (strength()) parts.push(cell(number(score)));
  } else {
    parts.push(cell(error ? "no answer" : "…", "given"));
    if (strength()) parts.push(cell(""));
  }
  if (hasNotes) parts.push(cell(note(row) ?? "", "note"));
  parts.push(...cells.map((text) => cell(text)));
  return make("tr", { className: error ? "failed" : "" }, ...parts);
}

function summary(seconds, stop) {
  const given = file.rows.filter((row) => row.given).map((row) => row.given);
  const failed = file.rows.filter((row) => row.error).length;
  const speed = `${number(seconds, 2)} s, ${number(given.length / seconds, 3)} rows/s`;
  const lines = [line("", `${stop}${count(given.length, "row")} answered in ${speed}`)];
  if (given.length) lines.push(line("", tally(given.map(({ prediction }) => prediction))));
  if (failed) lines.push(line("worry", `No answer to ${count(failed, "row")}: the notes say why`));
  const lacking = file.lacking.map(({ name }) => name).join(", ");
  if (lacking) lines.push(line("worry", `Not in the file, so taken as missing: ${lacking}`));
  return lines;
}

function tally(predictions) {
  if (contract.task === "regression") {
    const mean = predictions.reduce((sum, each) => sum + each, 0) / predictions.length;
    const [least, most] = [Math.min, Math.max].map((of) => predictions.reduce((a, b) => of(a, b)));
    return `Mean ${number(mean)}, from ${number(least)} to ${number(most)}`;
  }
  const counts = new Map();
  for (const label of predictions) counts.set(label, (counts.get(label) ?? 0) + 1);
  const sorted = [...counts].sort(([, a], [, b]) => b - a);
  const name = (label) => (contract.target || typeof label === "string" ? label : `group ${label}`);
  const words = sorted.slice(0, 12).map(([label, rows]) => `${name(label)}: ${whole(rows)}`);
  return words.join(", ") + (sorted.length > 12 ? `, and ${sorted.length - 12} more` : "");
}

/** Offer a text as a file; spreadsheets need the mark to read it as UTF-8. */
function save(download, text) {
  const href = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv" }));
  make("a", { href, download }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000);
}

function saveAnswers() {
  const first = file.rows.find((row) => row.given)?.given;
  const classes = Object.keys(first?.probabilities ?? {});
  const scores = contract.task === "clustering" ? ["score"] : [];
  const rows = file.rows.map(({ cells, given, error }) => [
    ...file.header.map((_, i) => cells[i]),
    given?.prediction,
    ...classes.map((name) => given?.probabilities[name]),
    ...scores.map((name) => given?.[name]),
    given?.warnings.join("; "),
    error,
  ]);
  const added = ["prediction", ...classes.map((name) => `probability_${name}`), ...scores];
  const head = [...file.header, ...added, "warnings", "error"];
  const name = file.name.replace(/\.\w+$/, "");
  save(`${name}-predictions.csv`, write([head, ...rows], file.delimiter, file.decimal));
}

function saveExample() {
  const names = features(contract).map(({ name }) => name);
  const rows = examples.map(({ row }) => names.map((name) => row[name]));
  save("example.csv", write([names, ...rows], ",", "."));
}

element("shown").append(...Object.keys(SHOWN).map((text) => make("option", {}, text)));
element("shown").addEventListener("input", () => {
  page = 0;
  showRows();
});
for (const [id, turn] of Object.entries(TURNS)) {
  element(id).addEventListener("click", () => {
    page = turn(page);
    showRows();
  });
}
element("cancel").addEventListener("click", () => running.abort());
element("save").addEventListener("click", saveAnswers);
element("save-example").addEventListener("click", saveExample);
element("file").addEventListener("change", ({ target }) => {
  if (target.files.length) start(target.files[0]);
  target.value = "";
});
// A file that misses the zone would otherwise replace the page.
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    element("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && contract && event.dataTransfer.files.length) {
      start(event.dataTransfer.files[0]);
    }
  });
}
