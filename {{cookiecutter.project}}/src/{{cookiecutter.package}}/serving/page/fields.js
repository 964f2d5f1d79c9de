import { make, moment, spoken } from "./dom.js";

const MOST_OPTIONS = 40;
const OTHER = "something else…";

/**
 * Make the widget of a column.
 *
 * What it gives back reads and writes the value as JSON has it, null where it is missing.
 */
export function makeField(column, position, examples) {
  const id = `field-${position}`;
  const kinds = { boolean: choice, categorical: category };
  const widget = (kinds[column.kind] ?? entry)(column, id, examples);
  const error = make("p", { className: "error", id: `${id}-error` });
  const help = make("p", { className: "hint", id: `${id}-hint`, textContent: hint(column) });
  const [outer, inner] = column.kind === "boolean" ? ["fieldset", "legend"] : ["div", "label"];
  const label = make(inner, inner === "label" ? { htmlFor: id } : {}, spoken(column.name));
  const node = make(outer, { className: "field" }, label, ...widget.nodes, help, error);
  for (const input of widget.inputs) {
    input.setAttribute("aria-describedby", `${id}-hint ${id}-error`);
  }
  function complain(message) {
    error.textContent = message;
    for (const input of widget.inputs) {
      if (message) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
    }
  }
  node.addEventListener("input", () => complain(""));
  return {
    column,
    node,
    complain,
    read: widget.read,
    write: widget.write,
    focus: () => widget.focused().focus(),
    isUnreadable: () => widget.inputs.some((input) => input.validity.badInput),
    isWrong: () => Boolean(error.textContent),
  };
}

/** Two or three buttons of which one is pressed. */
function choice(column, id) {
  const [no, yes] = column.categories;
  const values = column.nullable ? [yes, no, ""] : [yes, no];
  const inputs = values.map((value) => make("input", { type: "radio", name: id, value }));
  const named = (input) => make("label", {}, input, make("span", {}, input.value || "missing"));
  const chosen = () => inputs.find((input) => input.checked);
  return {
    nodes: [make("div", { className: "segments" }, ...inputs.map(named))],
    inputs,
    focused: () => chosen() ?? inputs[0],
    read: () => chosen()?.value || null,
    write(value) {
      const lower = String(value ?? "").toLowerCase();
      const spelling = { true: yes, false: no }[lower] ?? lower;
      for (const input of inputs) {
        input.checked = input.value.toLowerCase() === spelling.toLowerCase();
      }
    },
  };
}

/** A list to choose from that leaves room for what training has not seen. */
function category(column, id) {
  const options = column.categories.map((value) => make("option", { value, textContent: value }));
  if (options.length > MOST_OPTIONS) {
    const input = make("input", { id, type: "text", autocomplete: "off", spellcheck: false });
    input.setAttribute("list", `${id}-list`);
    return text(input, make("datalist", { id: `${id}-list` }, ...options));
  }
  const none = make("option", { textContent: column.nullable ? "missing" : "Choose…" });
  none.value = "";
  const other = make("option", { textContent: OTHER, className: "quiet" });
  const select = make("select", { id, required: !column.nullable }, none, ...options, other);
  const name = `${spoken(column.name)}, ${OTHER}`;
  const free = make("input", { type: "text", hidden: true, ariaLabel: name, spellcheck: false });
  const isOther = () => other.selected;
  select.addEventListener("input", () => {
    free.hidden = !isOther();
    if (isOther()) free.focus();
  });
  return {
    nodes: [select, free],
    inputs: [select, free],
    focused: () => (isOther() ? free : select),
    read: () => (isOther() ? free.value : select.selectedIndex && select.value) || null,
    write(value) {
      const place = column.categories.indexOf(value);
      const isFree = value !== null && value !== undefined && place < 0;
      select.selectedIndex = isFree ? options.length + 1 : place + 1;
      free.value = isFree ? value : "";
      free.hidden = !isFree;
    },
  };
}

/** A number, a date, or text where no widget can hold what the column has. */
function entry(column, id, examples) {
  if (column.kind !== "datetime") {
    const step = column.kind === "integer" ? 1 : stepOf(column);
    const input = make("input", { id, type: "number", step, inputMode: "decimal" });
    return { ...text(input), read: () => (input.value === "" ? null : Number(input.value)) };
  }
  const given = examples.map((example) => example.row[column.name]);
  const written = [column.minimum, column.maximum, ...given];
  const all = (pattern) =>
    !column.format && written.every((each) => each === null || pattern.test(each));
  if (all(/^\d{4}-\d\d-\d\d(T00:00:00)?(\.0+)?$/)) {
    const input = make("input", { id, type: "date" });
    const write = (value) => (input.value = value?.slice(0, 10) ?? "");
    return { ...text(input), write };
  }
  if (all(/^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,3})?)?$/)) {
    return text(make("input", { id, type: "datetime-local", step: "any" }));
  }
  return text(make("input", { id, type: "text", spellcheck: false, autocomplete: "off" }));
}

function text(input, ...nodes) {
  return {
    nodes: [input, ...nodes],
    inputs: [input],
    focused: () => input,
    read: () => (input.value.trim() === "" ? null : input.value),
    write: (value) => (input.value = value ?? ""),
  };
}

/** A power of ten, about a hundredth of the range. */
function stepOf({ minimum, maximum }) {
  return maximum > minimum ? 10 ** Math.round(Math.log10((maximum - minimum) / 100)) : "any";
}

function hint({ kind, minimum, maximum, format, nullable, categories }) {
  const parts = [];
  if (format) parts.push(`${format} or ISO 8601`);
  if (minimum !== null) parts.push(`${moment(minimum)} to ${moment(maximum)} in training`);
  if (kind === "categorical" && categories.length > MOST_OPTIONS) {
    parts.push(`${categories.length} seen in training`);
  }
  if (nullable && kind !== "boolean") parts.push("may be missing");
  return parts.join(", ");
}
