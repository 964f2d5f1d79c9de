/** Make an element; text is always set as text, never parsed. */
export function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** Make an element of an inline SVG. */
export function draw(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export const element = (id) => document.getElementById(id);
export const line = (className, textContent) => make("p", { className, textContent });
export const spoken = (name) => name.replaceAll("_", " ");
export const number = (value, maximumSignificantDigits = 5) =>
  new Intl.NumberFormat("en", { maximumSignificantDigits }).format(value);
export const count = (amount, noun) => `${number(amount, 21)} ${noun}${amount === 1 ? "" : "s"}`;
export const share = (value) => `${(100 * value).toFixed(1)} %`;

/** Say a moment without the parts that tell nothing. */
export const moment = (value) => String(value).replace(/T00:00:00$/, "").replace("T", " ");

/** Make a table; cells are texts or elements, and the first of each row is its heading. */
export function table(caption, headings, rows) {
  const titles = headings.map((text) => make("th", { scope: "col" }, text));
  const body = rows.map(([first, ...rest]) => {
    const cells = rest.map((cell) => make("td", {}, cell));
    return make("tr", {}, make("th", { scope: "row" }, first), ...cells);
  });
  const head = make("thead", {}, make("tr", {}, ...titles));
  return make("table", {}, make("caption", {}, caption), head, make("tbody", {}, ...body));
}
