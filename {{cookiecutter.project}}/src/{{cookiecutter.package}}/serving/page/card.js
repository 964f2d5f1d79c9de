import { count, element, make, number, spoken, table } from "./dom.js";
import { bars, strip } from "./plots.js";

const NAMES = { f1_macro: "F1, averaged over classes", r2: "R²", roc_auc: "ROC AUC" };
const LOWER_IS_BETTER = ["log_loss", "mean_absolute_error", "root_mean_squared_error"];
const metricName = (name) => NAMES[name] ?? spoken(name);
const figure = (value) => (typeof value === "number" ? number(value, 3) : "");

/** Show what is known of a model. */
export function showCard({ card, contract }) {
  const { baseline, data, metrics, libraries, settings, plan, search } = card;
  const main = card.cross_validation.metric;
  const beaten = figure(baseline?.[main]);
  element("main-metric").replaceChildren(
    make("strong", { textContent: figure(metrics[main]) }),
    ` ${metricName(main)} on unseen rows${beaten && `; the baseline has ${beaten}`}`,
  );
  const facts = {
    Version: card.version,
    Task: contract.target ? `${card.task}, predicts ${spoken(contract.target.name)}` : card.task,
    Estimator: spoken(card.estimator),
    "Trained on": `${count(data.training_rows, "row")} of ${data.source.split("/").pop()}`,
    "Measured on": `${count(data.test_rows, "row")} that it has not seen`,
  };
  element("facts").replaceChildren(...definitions(facts));
  element("metrics").replaceChildren(metricsTable(metrics, baseline));
  element("plots").replaceChildren(...plots(card, metricName(main)));
  const kinds = contract.columns.map(({ name, kind, nullable, reason }) => [
    name,
    reason ?? kind + (nullable ? ", may be missing" : ""),
  ]);
  element("folded").replaceChildren(
    folded("Data and columns", { ...data, columns: Object.fromEntries(kinds) }),
    folded("Settings", { ...settings, search }),
    folded("Build and libraries", { git_commit: card.git_commit, plan, ...libraries }),
  );
}

function metricsTable(metrics, baseline) {
  const names = Object.keys(metrics).filter((name) => typeof metrics[name] === "number");
  const isCompared = names.some((name) => name in (baseline ?? {}));
  const rows = names.map((name) => {
    const title = make("span", {}, metricName(name));
    if (LOWER_IS_BETTER.includes(name)) title.append(make("small", {}, "lower is better"));
    return [title, figure(metrics[name]), ...(isCompared ? [figure(baseline[name])] : [])];
  });
  return table("On unseen rows", ["Metric", "Model", ...(isCompared ? ["Baseline"] : [])], rows);
}

function plots({ importance, metrics, baseline, cross_validation: validation }, main) {
  const drawn = [];
  const columns = Object.entries(importance ?? {}).map(([name, { mean, std }]) => ({
    name: spoken(name),
    value: mean,
    from: mean - std,
    to: mean + std,
  }));
  if (columns.length) {
    const note = `How much ${main} falls when a column is shuffled; the line is the spread`;
    const highest = Math.max(...columns.map(({ to }) => to), 1e-9);
    drawn.push(bars("What the model looks at", note, columns, highest));
  }
  if (metrics.recall) {
    const classes = Object.entries(metrics.recall)
      .map(([name, value]) => ({ name, value, mark: baseline?.recall?.[name] }))
      .sort((a, b) => a.value - b.value);
    const note = "Share of the rows of a class that is predicted right; the tick is the baseline";
    drawn.push(bars("Found of each class", note, classes, 1));
  }
  if (metrics.shares) {
    const groups = Object.entries(metrics.shares).map(([name, value]) => ({ name, value }));
    drawn.push(bars("Size of each group", "Share of the unseen rows", groups, 1));
  }
  const { folds, mean, std } = validation;
  const label = `${main} by fold: ${folds.map(figure).join(", ")}; mean ${figure(mean)}`;
  const words = `mean ${figure(mean)} ± ${number(std, 2)}`;
  const note = `${main} in each of ${folds.length} folds; the tick is the mean`;
  const caption = make("figcaption", {}, "Cross-validation", make("small", {}, note));
  const [low, high] = [Math.min(...folds), Math.max(...folds)];
  drawn.push(make("figure", {}, caption, strip(label, folds, low, high, mean, words)));
  return drawn;
}

function folded(title, content) {
  const rows = definitions(Object.fromEntries(flat(content)));
  return make("details", {}, make("summary", { textContent: title }), make("dl", {}, ...rows));
}

/** Name what is nested by its path, without what is empty. */
function flat(content, prefix = "") {
  return Object.entries(content).flatMap(([name, value]) => {
    if (value === null || value === undefined || value.length === 0) return [];
    if (Array.isArray(value)) return [[prefix + name, value.join(", ")]];
    return typeof value === "object" ? flat(value, `${name}: `) : [[prefix + name, String(value)]];
  });
}

function definitions(facts) {
  return Object.entries(facts).flatMap(([name, text]) => [
    make("dt", { textContent: name }),
    make("dd", { textContent: text }),
  ]);
}
