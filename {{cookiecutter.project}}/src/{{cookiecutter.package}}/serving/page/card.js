import { count, draw, element, line, make, number, spoken, table } from "./dom.js";

const MOST_BARS = 12;
const NAMES = { f1_macro: "F1, averaged over classes", r2: "R²", roc_auc: "ROC AUC" };
const LOWER_IS_BETTER = ["log_loss", "mean_absolute_error", "root_mean_squared_error"];
const metricName = (name) => NAMES[name] ?? spoken(name);
const figure = (value) => (typeof value === "number" ? number(value, 3) : "–");

/** Show what is known of a model. */
export function showCard({ card, contract }) {
  const { baseline, cross_validation: folds, data, metrics } = card;
  const main = folds.metric;
  const beside = main in (baseline ?? {}) ? `, where the baseline has ${figure(baseline[main])}` : "";
  element("main-metric").replaceChildren(
    make("strong", { textContent: figure(metrics[main]) }),
    make("span", { textContent: ` ${metricName(main)} on unseen rows${beside}` }),
  );
  const facts = {
    Version: card.version,
    Task: contract.target ? `${card.task}, predicts ${spoken(contract.target.name)}` : card.task,
    Estimator: spoken(card.estimator),
    "Trained on": `${count(data.training_rows, "row")} of ${data.source.split("/").pop()}`,
    "Measured on": `${count(data.test_rows, "row")} that it has not seen`,
  };
  element("facts").replaceChildren(...definitions(facts));
  element("metrics").replaceChildren(metricsTable(metrics, baseline ?? {}));
  element("plots").replaceChildren(...plots(card, main));
  const { libraries, settings, plan, search } = card;
  element("folded").replaceChildren(
    folded("Data and columns", { ...data, ...columns(contract) }),
    folded("Settings", { ...settings, search }),
    folded("Build and libraries", { git_commit: card.git_commit, plan, ...libraries }),
  );
}

function metricsTable(metrics, baseline) {
  const compared = Object.keys(baseline).length > 0;
  const rows = Object.entries(metrics)
    .filter(([, value]) => typeof value === "number")
    .map(([name, value]) => {
      const title = make("span", {}, metricName(name));
      if (LOWER_IS_BETTER.includes(name)) title.append(make("small", {}, "lower is better"));
      return [title, figure(value), ...(compared ? [figure(baseline[name])] : [])];
    });
  return table("On unseen rows", ["Metric", "Model", ...(compared ? ["Baseline"] : [])], rows);
}

function plots({ importance, metrics, baseline, cross_validation: folds }, main) {
  const drawn = [];
  const columns = Object.entries(importance ?? {});
  if (columns.length) {
    const note = `How much ${metricName(main)} falls when a column is shuffled; the line is its spread`;
    const bars = columns.map(([name, { mean, std }]) => ({
      name: spoken(name),
      value: mean,
      from: mean - std,
      to: mean + std,
    }));
    drawn.push(barPlot("What the model looks at", note, bars, false));
  }
  for (const [key, title, note] of [
    ["recall", "Found of each class", "Share of the rows of a class that is predicted right"],
    ["shares", "Size of each group", "Share of the unseen rows that falls into a group"],
  ]) {
    const bars = Object.entries(metrics[key] ?? {}).map(([name, value]) => ({ name, value }));
    if (key === "recall") bars.forEach((bar) => (bar.mark = baseline?.recall?.[bar.name]));
    const marked = bars.some(({ mark }) => mark !== undefined) ? "; the tick is the baseline" : "";
    if (bars.length) drawn.push(barPlot(title, note + marked, bars, true));
  }
  drawn.push(foldPlot(folds));
  return drawn;
}

/** A table of which each row has its bar: read aloud, it is the table. */
function barPlot(title, note, bars, isShare) {
  const highest = isShare ? 1 : Math.max(...bars.map(({ value, to }) => to ?? value), 1e-12);
  const at = (value) => `${(100 * Math.min(Math.max(value / highest, 0), 1)).toFixed(2)}%`;
  const between = (from, to) => `${((100 * (Math.min(to, highest) - Math.max(from, 0))) / highest).toFixed(2)}%`;
  const shown = bars.length > MOST_BARS && isShare ? [...bars].sort((a, b) => a.value - b.value) : bars;
  const rows = shown.slice(0, MOST_BARS).map(({ name, value, from, to, mark }) => {
    const parts = [
      draw("rect", { class: "track", width: "100%", y: 4, height: 8, rx: 4 }),
      draw("rect", { class: "fill", width: at(value), y: 4, height: 8, rx: 4 }),
    ];
    if (to > 0 && to > from) {
      parts.push(draw("rect", { class: "whisker", x: at(from), width: between(from, to), y: 7.25, height: 1.5 }));
    }
    if (mark !== undefined) {
      parts.push(draw("line", { class: "tick", x1: at(mark), x2: at(mark), y1: 0, y2: 16 }));
    }
    const words = isShare ? `${(100 * value).toFixed(1)} %` : number(value, 2);
    return [name, draw("svg", { class: "bar", "aria-hidden": "true" }, ...parts), words];
  });
  const rest = bars.length - MOST_BARS;
  const which = isShare ? "lowest" : "first";
  const more = rest > 0 ? `. The ${MOST_BARS} ${which} of ${bars.length}` : "";
  const node = make("figure", {}, table(title, ["Name", "Bar", "Value"], rows));
  node.querySelector("caption").append(make("small", {}, note + more));
  node.querySelector("thead").classList.add("unseen");
  return node;
}

function foldPlot({ metric, folds, mean, std }) {
  const [least, most] = [Math.min(...folds), Math.max(...folds)];
  const at = (value) => `${most > least ? (100 * (value - least)) / (most - least) : 50}%`;
  const words = `${folds.map(figure).join(", ")}; mean ${figure(mean)}`;
  const dots = folds.map((value) => draw("circle", { class: "dot", cx: at(value), cy: 16, r: 6 }));
  const plot = draw(
    "svg",
    { class: "folds", role: "img", "aria-label": `${metricName(metric)} by fold: ${words}` },
    draw("rect", { class: "track", width: "100%", y: 15, height: 2 }),
    draw("line", { class: "tick", x1: at(mean), x2: at(mean), y1: 2, y2: 30 }),
    ...dots,
  );
  const ends = [figure(least), `mean ${figure(mean)} ± ${number(std, 2)}`, figure(most)];
  return make(
    "figure",
    {},
    make(
      "figcaption",
      {},
      "Cross-validation",
      make("small", {}, `${metricName(metric)} in each of ${folds.length} folds; the tick is the mean`),
    ),
    plot,
    make("div", { className: "ends" }, ...ends.map((textContent) => make("span", { textContent }))),
  );
}

function columns(contract) {
  const words = ({ kind, nullable, reason }) => reason ?? kind + (nullable ? ", may be missing" : "");
  return { columns: Object.fromEntries(contract.columns.map((each) => [each.name, words(each)])) };
}

function folded(title, content) {
  return make(
    "details",
    {},
    make("summary", { textContent: title }),
    make("dl", {}, ...definitions(Object.fromEntries(flat(content)))),
  );
}

/** Name what is nested by its path, without what is empty. */
function flat(content, prefix = "") {
  return Object.entries(content).flatMap(([name, value]) => {
    if (value === null || value === undefined || value === "") return [];
    if (Array.isArray(value)) return value.length ? [[prefix + name, value.join(", ")]] : [];
    return typeof value === "object" ? flat(value, `${name}: `) : [[prefix + name, String(value)]];
  });
}

function definitions(facts) {
  return Object.entries(facts).flatMap(([name, text]) => [
    make("dt", { textContent: name }),
    make("dd", { textContent: text }),
  ]);
}
