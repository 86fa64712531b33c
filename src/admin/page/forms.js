// @ts-check
// The views that answer a question: explain, and the settings in effect.
"use strict";

const explainSource = new Source(
  () => {
    if (route.view !== "explain" || !explainPending) return null;
    const { series, source, destination } = explainAsked();
    const parameters = new URLSearchParams({ series, destination });
    if (source) parameters.set("source", source);
    return `api/v1/explain?${parameters}`;
  },
  showExplanation,
  (refusal) => {
    explainPending = false;
    byId("explain-result").hidden = true;
    showExplainError(plain(refusal.message));
  },
);

/** Whether the question in the address has no answer yet. */
let explainPending = false;

function explainAsked() {
  return {
    series: route.parameters.get("series") ?? "",
    source: route.parameters.get("source") ?? "",
    destination: askedDestination(),
  };
}

function beginExplain() {
  const { series, source, destination } = explainAsked();
  byId("explain-series").value = series;
  byId("explain-source").value = source;
  byId("explain-destination").value = destination;
  showExplainError("");
  byId("explain-result").hidden = true;
  explainPending = series !== "";
}

function showExplainError(/** @type {string} */ text) {
  const error = byId("explain-error");
  error.hidden = text === "";
  setText(error, text);
  byId("explain-series").setAttribute("aria-invalid", String(text !== ""));
}

/** The beginning of the sentence that says what happens. */
const DECISIONS = new Map(Object.entries({
  missing: "No tenant: the request is refused, or the series dropped, by tenant.on_missing",
  invalid: "The tenant is not valid: the request is refused, or the series dropped, by tenant.on_invalid",
  dropped: "The series is dropped",
}));

function showExplanation(/** @type {any} */ answer) {
  explainPending = false;
  showExplainError("");
  byId("explain-result").hidden = false;
  const decision = byId("decision");
  if (answer.decision === "tenant") decision.replaceChildren("Goes to tenant ", isolated(answer.tenant || "(empty)"));
  else decision.replaceChildren(DECISIONS.get(answer.decision) ?? plain(answer.decision));
  decision.className = `decision ${answer.decision === "tenant" ? "good-text" : "bad-text"}`;
  /** @type {Fact[]} */
  const facts = [];
  if (answer.reason !== null) facts.push(outside("Because", answer.reason));
  if (answer.label !== null) {
    const value = answer.label_value === null ? "" : ` = ${answer.label_value}`;
    facts.push(outside("Label", `${answer.label}${value}`, "mono"));
  }
  if (answer.rule) facts.push(outside("Decided by", ruleText(answer.rule)));
  if (answer.decision !== "tenant" && answer.tenant !== null) facts.push(outside("Tenant", answer.tenant));
  if (answer.decision === "tenant") {
    facts.push(outside("Upstream", answer.upstream), outside("Target", answer.target, "mono"));
  }
  if (answer.header) facts.push(outside("Header", `${answer.header.name}: ${answer.header.value}`, "mono"));
  if (answer.label_removed) facts.push(["Label removed", "yes: the upstream does not get the label"]);
  setFacts(byId("decision-facts"), facts);
}

function startExplain() {
  const form = byId("explain-form");
  form.addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    const parameters = new URLSearchParams({ series: byId("explain-series").value.trim() });
    const source = byId("explain-source").value;
    if (source) parameters.set("source", source);
    const destination = byId("explain-destination").value;
    if (destination !== DESTINATIONS[0]) parameters.set("destination", destination);
    go(`#/explain?${parameters}`, false);
  });
  byId("explain-series").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
}

/** @type {Table<any>} */
const settingsTable = new Table(byId("settings-table"), [
  { label: "Setting", className: "mono", show: (cell, row) => setUntrusted(child(cell, "bdi"), row.key) },
  { label: "Value", className: "mono", show: (cell, row) => setUntrusted(child(cell, "bdi"), row.value) },
], (row) => row.key);

/** @type {{key: string, value: string}[]|null} null until they are there; a visit of the view asks anew. */
let settings = null;

const settingsSource = new Source(
  () => (route.view === "settings" && settings === null ? "api/v1/config" : null),
  (answer) => {
    settings = answer.settings;
    showSettings();
  },
  (refusal) => {
    byId("settings-message").hidden = false;
    put("settings-message", plain(refusal.message));
  },
);

function showSettings() {
  if (!settings) return;
  const part = byId("settings-filter").value.trim().toLowerCase();
  const shown = settings.filter(({ key, value }) => `${key} ${value}`.toLowerCase().includes(part));
  settingsTable.update(shown, latest.now);
  put("settings-count", part ? `${shown.length} of ${settings.length}` : String(settings.length));
  byId("settings-message").hidden = shown.length > 0;
  put("settings-message", shown.length ? "" : "No setting matches.");
}

function startSettings() {
  byId("settings-filter").addEventListener("input", showSettings);
  byId("settings-form").addEventListener("submit", (/** @type {Event} */ event) => event.preventDefault());
}
