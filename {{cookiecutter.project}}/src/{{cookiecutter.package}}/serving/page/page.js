import { call } from "./api.js";
import { takeFiles } from "./batch.js";
import { showCard } from "./card.js";
import { count, element, spoken } from "./dom.js";
import { features, predict, showForm } from "./single.js";

let model = null;
let takesFeedback = false;
let loading = null;

async function start() {
  model = (await call("model")).content;
  const { content } = await call("openapi.json");
  takesFeedback = "/feedback" in content.paths;
  show();
  showForm(model, takesFeedback, seen);
  for (const id of ["one", "many", "model"]) element(id).hidden = false;
}

function show() {
  const { card, contract } = model;
  const columns = count(features(contract).length, "value");
  document.title = card.name;
  element("name").textContent = card.name;
  element("purpose").textContent = contract.target
    ? `Predicts ${spoken(contract.target.name)} from ${columns}`
    : `Groups rows of ${columns}`;
  showCard(model);
  takeFiles(model, seen);
}

/** Where another version answered than the one that is shown, show that one. */
function seen(version) {
  if (version === model.card.version || loading) return;
  loading = attempt(reload).finally(() => (loading = null));
}

async function reload() {
  const before = JSON.stringify(model.contract);
  model = (await call("model")).content;
  show();
  if (JSON.stringify(model.contract) !== before) showForm(model, takesFeedback, seen);
  element("swapped").textContent = `The service changed to version ${model.card.version}.`;
}

async function attempt(step) {
  try {
    element("notice").hidden = true;
    await step();
  } catch (error) {
    const isAnswer = "status" in error;
    const reason = isAnswer ? error.message : `The service does not answer: ${error.message}`;
    element("notice-text").textContent = reason;
    element("notice").hidden = false;
  }
}

/** Asking whether it is ready makes the service look for a model again. */
async function retry() {
  await call("health/ready");
  if (!model) await start();
}

element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(predict);
});
element("retry").addEventListener("click", () => attempt(retry));
attempt(start);
