import { draw, make, number, share } from "./dom.js";

const MOST = 12;
const percent = (part) => `${(100 * Math.min(Math.max(part, 0), 1)).toFixed(2)}%`;

/**
 * A table of which each row has its bar; read aloud, it is the table.
 *
 * A bar has a name and a value, and may have a spread `from` … `to` and a `mark`.
 */
export function bars(title, note, items, highest) {
  const rows = items.slice(0, MOST).map(({ name, value, from, to, mark }) => {
    const at = (place) => percent(place / highest);
    const parts = [
      draw("rect", { class: "track", width: "100%", y: 4, height: 8, rx: 4 }),
      draw("rect", { class: "fill", width: at(value), y: 4, height: 8, rx: 4 }),
    ];
    if (to > from) {
      parts.push(draw("line", { class: "whisker", x1: at(from), x2: at(to), y1: 8, y2: 8 }));
    }
    if (mark !== undefined) {
      parts.push(draw("line", { class: "tick", x1: at(mark), x2: at(mark), y1: 0, y2: 16 }));
    }
    const figure = draw("svg", { class: "bar", "aria-hidden": "true" }, ...parts);
    return make(
      "tr",
      {},
      make("th", { scope: "row", title: name, textContent: name }),
      make("td", {}, figure),
      make("td", { textContent: highest === 1 ? share(value) : number(value, 2) }),
    );
  });
  const more = items.length > MOST ? `. ${MOST} of ${items.length} are shown` : "";
  const caption = make("caption", {}, title, make("small", { textContent: note + more }));
  return make("table", { className: "bars" }, caption, make("tbody", {}, ...rows));
}

/** Dots on a line from `low` to `high`, with a tick where there is one. */
export function strip(label, values, low, high, tick, words) {
  const at = (value) => (high > low ? percent((value - low) / (high - low)) : "50%");
  const dots = values.map((value) => draw("circle", { class: "dot", cx: at(value), cy: 16, r: 6 }));
  const line = draw("rect", { class: "track", width: "100%", y: 15, height: 2 });
  const ticks = [tick].filter((place) => place !== null);
  const marks = ticks.map(at).map((x) => draw("line", { class: "tick", x1: x, x2: x, y2: 32 }));
  const ends = [number(low, 3), words, number(high, 3)].map((text) => make("span", {}, text));
  return make(
    "div",
    {},
    draw("svg", { class: "strip", role: "img", "aria-label": label }, line, ...marks, ...dots),
    make("div", { className: "ends" }, ...ends),
  );
}
