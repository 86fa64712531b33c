// @ts-check
// A tenant's own view.
"use strict";

/** What the rule says; it is a statement of its own. */
function ruleText(/** @type {{kind: string, detail: string}|null} */ rule) {
  return rule?.detail ?? "not known";
}

/**
 * A fact whose value comes from outside.
 * @type {(name: string, text: string, className?: string) => Fact}
 */
function outside(name, text, className = "") {
  return [name, (dd) => setUntrusted(child(dd, "bdi"), text), className];
}

/** No address can end in these: a browser takes them for a folder and its parent. */
const NAMELESS = ["", ".", ".."];

const UNKNOWN = "This tenant is not known here: nothing has come for it since the start.";

const tenantSource = new Source(
  () => {
    if (route.view !== "tenant") return null;
    const { tenant, destination } = tenantAsked();
    return NAMELESS.includes(tenant) ? null : `api/v1/tenants/${encoded(tenant)}?destination=${destination}`;
  },
  showTenant,
  (refusal) => showTenantMessage(refusal.status === 404 ? UNKNOWN : plain(refusal.message)),
);

function tenantAsked() {
  return { tenant: route.argument, destination: askedDestination() };
}

function showTenantMessage(/** @type {string} */ text) {
  put("tenant-message", text);
  byId("tenant-message").hidden = text === "";
  byId("tenant-body").hidden = true;
}

/** What is known before the answer. */
function beginTenant() {
  const { tenant, destination } = tenantAsked();
  setUntrusted(child(byId("tenant-title"), "bdi"), tenant || "(empty)");
  showTags(byId("tenant-tags"), { destination, slow: false, unaccounted_samples: 0 });
  const named = !NAMELESS.includes(tenant);
  showTenantMessage(named ? "Loading …" : "No address can name this tenant. Find it in the table.");
  byId("tenant-back").href = tenantsHash({});
}

/** @type {Table<any>} */
const errorsTable = new Table(byId("errors-table"), [
  { label: "When", show: (cell, row, now) => setTime(cell, row.at, now) },
  { label: "Status", show: (cell, row) => setText(cell, row.status === null ? "no answer" : String(row.status)) },
  { label: "Reason", className: "reason", show: (cell, row) => setUntrusted(child(cell, "bdi"), row.reason) },
  { label: "Request ID", className: "mono id", show: (cell, row) => setUntrusted(child(cell, "bdi"), row.request_id) },
  { label: "Sender", className: "mono", show: (cell, row) => setCut(cell, row.sender) },
  { label: "Upstream", className: "mono", show: (cell, row) => setCut(cell, row.upstream ?? "–") },
], (row) => `${row.at} ${row.request_id} ${row.status} ${row.upstream} ${row.reason}`);

function showTenant(/** @type {any} */ tenant) {
  showTenantMessage("");
  byId("tenant-body").hidden = false;
  setUntrusted(child(byId("tenant-title"), "bdi"), tenant.tenant || "(empty)");
  showTags(byId("tenant-tags"), tenant);
  const { rates, totals } = tenant;
  const peak = drawTold("tenant-line", tenant.history, 30, 2);
  put("tenant-samples", short(rates.samples));
  put("tenant-samples-more",
    joined(`${short(rates.series)} series/s`, `peak ${short(peak)}`, `${short(totals.samples)} in all`));
  put("tenant-requests", short(rates.requests));
  const merged = `${short(totals.merged_fragments)} fragments merged`;
  put("tenant-requests-more", joined(`${bytes(rates.bytes)}/s`, `${bytes(totals.bytes)} in all`, merged));
  put("tenant-errors", short(rates.errors));
  put("tenant-errors-more", `${exact(totals.errors)} since the start`);
  setClass(byId("tenant-errors-tile"), "failing", rates.errors > 0);
  put("tenant-waiting", exact(tenant.waiting_fragments));
  put("tenant-waiting-more", joined(`oldest ${duration(tenant.oldest_waiting_seconds)}`,
    `${count(tenant.in_flight_samples)} samples in flight`, `${percent(tenant.cpu_share)} of CPU`));

  byId("errors-none").hidden = tenant.errors.length > 0;
  byId("errors-box").hidden = tenant.errors.length === 0;
  errorsTable.update(tenant.errors, latest.now);
  setFacts(byId("tenant-from"), fromFacts(tenant));
  setFacts(byId("tenant-to"), toFacts(tenant));
  setFacts(byId("tenant-ledger"), ledgerFacts(tenant.ledger));
  setFacts(byId("tenant-learnt"), learntFacts(tenant));
}

/** @returns {Fact[]} */
function toFacts(/** @type {any} */ { upstream, target, header }) {
  // By the settings of today the tenant may go nowhere: its ID may have become invalid.
  if (!header) return [["Upstream", "none: the settings no longer allow this tenant"]];
  return [
    outside("Upstream", upstream),
    outside("Target", target, "mono"),
    outside("Header", `${header.name}: ${header.value}`, "mono"),
  ];
}

/** @returns {Fact[]} */
function fromFacts(/** @type {any} */ tenant) {
  return [
    outside("Named by", ruleText(tenant.rule)),
    ["Last seen", (dd) => setTime(dd, tenant.last_seen_at, latest.now)],
    ...tenant.senders.map((/** @type {any} */ { sender, last_seen_at }, /** @type {number} */ index) => {
      return outside(index ? "" : "Senders", `${sender}, ${ago(last_seen_at, latest.now)}`, "mono");
    }),
  ];
}

/** @returns {Fact[]} */
function learntFacts(/** @type {any} */ { limits, sizes }) {
  /** @type {Fact[]} */
  const facts = [
    ["Connections at most", exact(limits.connections_max)],
    ["Parts at most", exact(limits.parts_max)],
    ["Bytes at most", bytes(limits.bytes_max)],
  ];
  if (!sizes.length) facts.push(["Largest request", "no upstream has refused one for its size"]);
  for (const { address, bytes_max } of sizes) {
    facts.push(outside("Largest request", `${bytes(bytes_max)} to ${address}`));
  }
  return facts;
}
