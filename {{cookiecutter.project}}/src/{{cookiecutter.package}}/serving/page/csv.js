const DELIMITERS = [",", ";", "\t", "|"];
// What pandas takes for missing, as training did.
const MISSING = new Set(
  `,#N/A,#N/A N/A,#NA,-1.#IND,-1.#QNAN,-NaN,-nan,1.#IND,1.#QNAN,<NA>,N/A,NA,NULL,NaN,None,n/a,nan,
null`.split(/,\n?/),
);
const GROUPED = {
  ".": /^[+-]?(?!0)\d{1,3}([,'’\s]\d{3})+(?=\.|$)/,
  ",": /^[+-]?(?!0)\d{1,3}([.'’\s]\d{3})+(?=,|$)/,
};
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

/** Read the bytes of a text file: UTF-8 or UTF-16 by its mark, else the Western code page. */
export function decode(bytes) {
  const [first, second] = new Uint8Array(bytes, 0, Math.min(bytes.byteLength, 2));
  if (first === 0xff && second === 0xfe) return new TextDecoder("utf-16le").decode(bytes);
  if (first === 0xfe && second === 0xff) return new TextDecoder("utf-16be").decode(bytes);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return new TextDecoder("windows-1252").decode(bytes);
  }
}

/** Cut a text into rows of fields (RFC 4180), without the rows in which nothing stands. */
export function parse(text, delimiter, most = Infinity) {
  const rows = [];
  let row = [];
  let field = "";
  let isQuoted = false;
  const endRow = () => {
    row.push(field);
    if (row.some((each) => each.trim() !== "")) rows.push(row);
    row = [];
    field = "";
  };
  for (let i = 0; i < text.length && rows.length < most; i += 1) {
    const character = text[i];
    if (isQuoted) {
      if (character !== '"') field += character;
      else if (text[i + 1] === '"') field += text[(i += 1)];
      else isQuoted = false;
    } else if (character === '"' && field.trim() === "") {
      isQuoted = true;
      field = "";
    } else if (character === delimiter) {
      row.push(field);
      field = "";
    } else if (character === "\n" || character === "\r") {
      if (character === "\r" && text[i + 1] === "\n") i += 1;
      endRow();
    } else field += character;
  }
  if (isQuoted) throw new Error(`a quote is not closed in row ${rows.length}`);
  endRow();
  return rows.slice(0, most);
}

/**
 * Read a table whose columns are known: the delimiter is the one that finds most of them.
 *
 * `places` has the position of each column, -1 where the file has none.
 */
export function read(text, columns) {
  const plain = text.replace(/^sep=.\r?\n/, "");
  const found = DELIMITERS.map((delimiter) => {
    const names = (parse(plain, delimiter, 1)[0] ?? []).map(folded);
    const places = columns.map((column) => names.indexOf(folded(column.name)));
    return { delimiter, places, hits: places.filter((place) => place >= 0).length };
  });
  const { delimiter, places, hits } = found.reduce((a, b) => (b.hits > a.hits ? b : a));
  const [header = [], ...rows] = parse(plain, delimiter);
  const lacking = columns.filter((_, i) => places[i] < 0);
  const required = hits ? lacking.filter(({ nullable }) => !nullable) : lacking;
  if (required.length || !hits) {
    const names = required.map(({ name }) => name).join(", ");
    throw new Error(`its first line lacks ${names}; it has ${header.join(", ") || "nothing"}`);
  }
  const decimal = decimalMark(rows, columns, places, delimiter);
  return { delimiter, decimal, header, rows, places, lacking };
}

const folded = (name) => name.trim().normalize("NFC").toLowerCase();
const isNumeric = ({ kind }) => kind === "numeric" || kind === "integer";

/** A comma where more numbers can only be read with it; "1,234" tells little. */
function decimalMark(rows, columns, places, delimiter) {
  const either = /^[+-]?\d{1,3}[.,]\d{3}$/;
  const fractions = { ",": /^[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+$/, ".": /^[+-]?[\d,]*\.\d+$/ };
  const numbers = places.filter((place, i) => place >= 0 && isNumeric(columns[i]));
  let sure = 0;
  let unsure = 0;
  for (const row of rows.slice(0, 2000)) {
    for (const text of numbers.map((place) => row[place]?.trim() ?? "")) {
      if (either.test(text)) unsure += text.includes(",") ? 1 : -1;
      else sure += fractions[","].test(text) - fractions["."].test(text);
    }
  }
  return (delimiter === "," ? sure : sure || unsure) > 0 ? "," : ".";
}

/** Give a field as JSON has it; what is no number stays text, for the service to say so. */
export function value(text, column, decimal) {
  const trimmed = text.trim();
  if (MISSING.has(trimmed) && !column.categories.includes(trimmed)) return null;
  if (!isNumeric(column)) return trimmed;
  const whole = trimmed.replace(GROUPED[decimal], (digits) => digits.replace(/[^\d+-]/g, ""));
  const plain = decimal === "," ? whole.replace(",", ".") : whole;
  const read = NUMBER.test(plain) ? Number(plain) : NaN;
  return Number.isFinite(read) ? read : trimmed;
}

/** Write rows; a number gets the decimal mark. */
export function write(rows, delimiter, decimal) {
  const special = new RegExp(`["\\r\\n${delimiter}]`);
  const cell = (each) => {
    const text = typeof each === "number" ? String(each).replace(".", decimal) : String(each ?? "");
    return special.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => `${row.map(cell).join(delimiter)}\r\n`).join("");
}
