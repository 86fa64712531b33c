// @ts-check
// The table of tenants. The server sorts, filters and pages; the browser holds one page of rows. What is asked for is
// in the address, so a link or a bookmark shows the same.
"use strict";

const PAGE_ROWS = 50;
const FILTER_PAUSE_MILLIS = 250;

/** The question as the address has it. */
function tenantsQuery() {
  const asked = route.view === "overview" ? route.parameters : tenantsAsked;
  const offset = Number.parseInt(asked.get("offset") ?? "", 10);
  return {
    sort: TENANT_COLUMNS.some(({ sort }) => sort === asked.get("sort")) ? String(asked.get("sort")) : "samples",
    order: asked.get("order") === "asc" ? "asc" : "desc",
    q: asked.get("q") ?? "",
    destination: DESTINATIONS.includes(asked.get("destination") ?? "") ? String(asked.get("destination")) : "",
    offset: offset > 0 ? offset : 0,
  };
}

/** The parameters that the table had when another view took its place. */
let tenantsAsked = new URLSearchParams();

/** The address with another question. What is as usual is left out. */
function tenantsHash(/** @type {Partial<ReturnType<typeof tenantsQuery>>} */ change) {
  const query = { ...tenantsQuery(), ...change };
  const parameters = new URLSearchParams();
  if (query.sort !== "samples") parameters.set("sort", query.sort);
  if (query.order !== "desc") parameters.set("order", query.order);
  if (query.q) parameters.set("q", query.q);
  if (query.destination) parameters.set("destination", query.destination);
  if (query.offset) parameters.set("offset", String(query.offset));
  const view = route.name === "overview" ? "" : "tenants";
  return `#/${view}${parameters.size ? `?${parameters}` : ""}`;
}

/** The kinds of data, as the API names them. The first is the usual one. */
const DESTINATIONS = ["metrics", "logs", "otlp_metrics", "otlp_logs", "otlp_traces"];

/** The kind of data in the address, or the usual one. */
function askedDestination() {
  const asked = route.parameters.get("destination") ?? "";
  return DESTINATIONS.includes(asked) ? asked : DESTINATIONS[0];
}

function tenantHash(/** @type {any} */ tenant) {
  const isUsual = !DESTINATIONS.slice(1).includes(tenant.destination);
  return `#/tenant/${encoded(tenant.tenant)}${isUsual ? "" : `?destination=${tenant.destination}`}`;
}

/** @type {Column<any>[]} */
const TENANT_COLUMNS = [
  {
    label: "Tenant", className: "name", sort: "tenant",
    show(cell, row) {
      const line = child(cell, "div");
      const link = /** @type {HTMLAnchorElement} */ (child(line, "a"));
      setAttribute(link, "href", tenantHash(row));
      setCut(link, row.tenant || "(empty)");
      showTags(child(line, "span"), row);
    },
  },
  { label: "Last minute", className: "trend", show: (cell, row) => drawLine(svgIn(cell, "line"), row.history, 30) },
  { label: "Samples/s", className: "num", sort: "samples", show: (cell, row) => setRate(cell, row.rates.samples) },
  {
    label: "Bytes/s", className: "num", sort: "bytes",
    show: (cell, row) => setNumber(cell, row.rates.bytes, bytes(row.rates.bytes)),
  },
  {
    label: "Requests/s", className: "num optional requests", sort: "requests",
    show: (cell, row) => setRate(cell, row.rates.requests),
  },
  {
    label: "Errors/s", className: "num optional", sort: "errors",
    show(cell, row) {
      setRate(cell, row.rates.errors);
      setClass(cell, "bad-text", row.rates.errors > 0);
    },
  },
  {
    label: "Merged", className: "num optional merges", sort: "merges",
    show: (cell, row) => setNumber(cell, row.totals.merged_fragments),
  },
  {
    label: "In flight", className: "num optional in-flight", sort: "in_flight",
    show: (cell, row) => setNumber(cell, row.in_flight_samples),
  },
  {
    label: "Waiting", className: "num optional", sort: "waiting",
    show: (cell, row) => setNumber(cell, row.waiting_fragments),
  },
  {
    label: "Oldest", className: "num optional", sort: "oldest",
    show: (cell, row) => setNumber(cell, row.oldest_waiting_seconds, duration(row.oldest_waiting_seconds)),
  },
  {
    label: "Last error", className: "last",
    show(cell, row, now) {
      const error = row.last_error;
      setClass(cell, "zero", !error);
      setCut(cell, error ? `${error.status ?? "no answer"}, ${ago(error.at, now)}: ${error.reason}` : "");
    },
  },
];

/** What sets a tenant apart from most. */
function showTags(/** @type {HTMLElement} */ place, /** @type {any} */ row) {
  const tags = [];
  if (DESTINATIONS.slice(1).includes(row.destination)) tags.push([row.destination, "tag"]);
  if (row.slow) tags.push(["slow", "tag slow"]);
  if (row.unaccounted_samples !== 0) tags.push(["unaccounted", "tag bad-text"]);
  const shown = tags.map(([text]) => text).join();
  if (place.dataset.tags === shown) return;
  place.dataset.tags = shown;
  place.replaceChildren(...tags.map(([text, className]) => {
    const tag = document.createElement("span");
    tag.className = className;
    tag.textContent = text;
    return tag;
  }));
}

/** @type {Table<any>} */
const tenantsTable = new Table(byId("tenants-table"), TENANT_COLUMNS, (row) => `${row.destination} ${row.tenant}`);

const HOLD_MILLIS = 10000;

/** When a pointer or a key was last used in the rows. */
let pointedAt = -HOLD_MILLIS;

/** Rows must not move away from a pointer or from the focus; but a page that is left alone must not stay as it is. */
function isPointedAt() {
  const body = tenantsTable.body;
  return performance.now() - pointedAt < HOLD_MILLIS && (body.matches(":hover") || body.matches(":focus-within"));
}

let shownPath = "";

const tenantsSource = new Source(
  () => {
    if (route.view !== "overview") return null;
    const { sort, order, q, destination, offset } = tenantsQuery();
    const parameters = new URLSearchParams({ sort, order, offset: String(offset), limit: String(PAGE_ROWS) });
    if (q) parameters.set("q", q);
    if (destination) parameters.set("destination", destination);
    return `api/v1/tenants?${parameters}`;
  },
  showTenants,
  (refusal) => showTenantsMessage(`The server does not show tenants: ${plain(refusal.message)}`, true),
);

function showTenants(/** @type {any} */ answer, /** @type {string} */ path) {
  const { sort, order, q, destination } = tenantsQuery();
  const asked = path !== shownPath;
  if (!answer.tenants.length && answer.offset > 0 && answer.matched > 0) {
    // Tenants have gone since, or the address was wrong.
    const offset = Math.floor((answer.matched - 1) / PAGE_ROWS) * PAGE_ROWS;
    return go(tenantsHash({ offset }), true);
  }
  if (!asked && isPointedAt()) tenantsTable.updateInPlace(answer.tenants, latest.now);
  else tenantsTable.update(answer.tenants, latest.now);
  tenantsTable.setSort(sort, order);
  const place = placeOf(answer, q || destination);
  put("tenants-count", place);
  if (asked && shownPath) announce(`Tenants: ${place}`);
  shownPath = path;
  byId("tenants-previous").disabled = answer.offset === 0;
  byId("tenants-next").disabled = answer.offset + answer.tenants.length >= answer.matched;
  if (answer.tenants.length) showTenantsMessage("", false);
  else showTenantsMessage(answer.total ? "No tenant matches." : "No tenant has written yet.", false);
}

function placeOf(/** @type {any} */ answer, /** @type {string} */ narrowed) {
  const of = narrowed ? `${exact(answer.matched)} of ${exact(answer.total)}` : exact(answer.total);
  if (answer.matched <= answer.tenants.length) return of;
  return `${exact(answer.offset + 1)}–${exact(answer.offset + answer.tenants.length)} of ${of}`;
}

function showTenantsMessage(/** @type {string} */ text, /** @type {boolean} */ bad) {
  const message = byId("tenants-message");
  message.hidden = text === "";
  byId("tenants-box").hidden = text !== "";
  setText(message, text);
  setClass(message, "bad-text", bad);
}

/** Brings the form to what the address says. */
function showTenantsForm() {
  const { sort, order, q, destination } = tenantsQuery();
  const filter = byId("tenants-filter");
  if (document.activeElement !== filter) filter.value = q;
  byId("tenants-destination").value = destination;
  byId("tenants-sort").value = `${sort} ${order}`;
  tenantsTable.setSort(sort, order);
}

function startTenants() {
  const select = byId("tenants-sort");
  for (const { label, sort } of TENANT_COLUMNS) {
    if (!sort) continue;
    const [up, down] = [new Option(`${label} ↑`, `${sort} asc`), new Option(`${label} ↓`, `${sort} desc`)];
    select.append(...(sort === "tenant" ? [up, down] : [down, up]));
  }
  select.addEventListener("change", () => {
    const [sort, order] = select.value.split(" ");
    go(tenantsHash({ sort, order, offset: 0 }), true);
  });
  byId("tenants-table").tHead.addEventListener("click", (/** @type {Event} */ event) => {
    const sort = /** @type {HTMLElement} */ (event.target).dataset.sort;
    if (!sort) return;
    const now = tenantsQuery();
    const first = sort === "tenant" ? "asc" : "desc";
    const order = now.sort !== sort ? first : now.order === "asc" ? "desc" : "asc";
    go(tenantsHash({ sort, order, offset: 0 }), true);
  });
  for (const kind of ["pointermove", "keydown", "focusin"]) {
    tenantsTable.body.addEventListener(kind, () => (pointedAt = performance.now()), { passive: true });
  }
  let pause = 0;
  const filter = byId("tenants-filter");
  filter.addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(() => go(tenantsHash({ q: filter.value, offset: 0 }), true), FILTER_PAUSE_MILLIS);
  });
  byId("tenants-destination").addEventListener("change", (/** @type {any} */ event) => {
    go(tenantsHash({ destination: event.target.value, offset: 0 }), true);
  });
  const turn = (/** @type {number} */ pages) => {
    go(tenantsHash({ offset: Math.max(0, tenantsQuery().offset + pages * PAGE_ROWS) }), false);
  };
  byId("tenants-previous").addEventListener("click", () => turn(-1));
  byId("tenants-next").addEventListener("click", () => turn(1));
  byId("tenants-form").addEventListener("submit", (/** @type {Event} */ event) => event.preventDefault());
}
