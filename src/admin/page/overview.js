// @ts-check
// The overview: health, throughput, upstreams, cores, the ledger, and the process itself.
"use strict";

/** What the latest answers said. `now` is the server's clock. */
const latest = { now: Date.now(), status: /** @type {any} */ (null), upstreams: /** @type {any} */ (null) };

/**
 * A condition that an operator should know of.
 * @typedef {{kind: string, level: "good"|"warn"|"bad", text: string, more?: string, href?: string}} Condition
 */

/** @returns {Condition[]} */
function conditionsOf(/** @type {any} */ status, /** @type {any} */ upstreams) {
  /** @type {Condition[]} */
  const found = [];
  const { ledger, reload, slow, rates } = status;
  if (ledger.unaccounted !== 0) {
    const text = `${counted(ledger.unaccounted, "sample")} unaccounted for`;
    found.push({ kind: "unaccounted", level: "bad", text, more: "must be 0" });
  }
  if (status.shutting_down) found.push({ kind: "shutdown", level: "warn", text: "Shutting down" });
  const addresses = (upstreams?.upstreams ?? []).flatMap((/** @type {any} */ upstream) => upstream.addresses);
  const resting = addresses.filter((/** @type {any} */ address) => address.state === "backoff").length;
  if (resting) {
    const text = `${resting} of ${counted(addresses.length, "address", "addresses")} in backoff`;
    found.push({ kind: "backoff", level: resting === addresses.length ? "bad" : "warn", text });
  }
  if (rates.errors > 0) {
    const href = "#/tenants?sort=errors&order=desc";
    found.push({ kind: "errors", level: "warn", text: `${short(rates.errors)} errors/s`, href });
  }
  if (slow.tenants > 0) {
    const href = "#/tenants?sort=oldest&order=desc";
    found.push({ kind: "slow", level: "warn", text: counted(slow.tenants, "slow tenant"), href });
  }
  const limits = [["requests", "Requests in flight"], ["bytes", "Bytes in flight"]];
  for (const [name, text] of limits) {
    const [used, most] = [status[`${name}_in_flight`], status[`${name}_in_flight_max`]];
    if (most > 0 && used >= 0.9 * most) found.push({ kind: name, level: "bad", text: `${text} near the limit` });
  }
  if (reload.last_succeeded === false) {
    found.push({ kind: "reload", level: "warn", text: "Last reload failed", more: "the older settings hold" });
  }
  if (reload.waiting_for_restart?.length) {
    const text = `${counted(reload.waiting_for_restart.length, "setting")} waiting for a restart`;
    found.push({ kind: "restart", level: "warn", text });
  }
  return found.length ? found : [{ kind: "well", level: "good", text: "All well", more: wellOf(status, addresses) }];
}

function wellOf(/** @type {any} */ status, /** @type {any[]} */ addresses) {
  return `${counted(addresses.length, "upstream address", "upstream addresses")} up or unused, no errors, ` +
    `every sample of ${counted(status.tenants, "tenant")} accounted for`;
}

let conditionsTold = "well";

function showHealth() {
  const { status, upstreams } = latest;
  // "All well" needs both answers.
  if (!status || !upstreams) return;
  const conditions = conditionsOf(status, upstreams);
  const list = byId("health");
  while (list.children.length > conditions.length) list.lastElementChild.remove();
  conditions.forEach(({ level, text, more = "", href }, index) => {
    const item = list.children[index] ?? list.appendChild(document.createElement("li"));
    setAttribute(item, "data-level", level);
    const link = /** @type {HTMLAnchorElement} */ (child(item, "a"));
    if (href) setAttribute(link, "href", href);
    else link.removeAttribute("href");
    setText(link, text);
    setText(child(item, "span"), more && ` ${more}`);
  });
  // Numbers change with each poll. Screen readers hear of a condition when it begins or ends.
  const kinds = conditions.map(({ kind }) => kind).join();
  if (kinds !== conditionsTold) announce(conditions.map(({ text }) => text).join(", "));
  conditionsTold = kinds;
}

function showStatus(/** @type {any} */ status) {
  latest.status = status;
  latest.now = Date.parse(status.now);
  const { rates, totals, history } = status;
  put("build", `${status.version} · ${status.driver} · up ${duration(status.uptime_seconds)}`);
  put("commit", status.commit);
  showHealth();

  const peak = drawTold("samples-line", history.samples, 60, history.step_seconds);
  put("samples-rate", short(rates.samples));
  const [requests, size] = [`${short(rates.requests)} requests/s`, `${bytes(rates.inflated_bytes)}/s`];
  put("samples-more", joined(requests, size, `peak ${short(peak)}`));
  drawTold("upstream-line", history.upstream_requests, 60, history.step_seconds);
  put("upstream-rate", short(rates.upstream_requests));
  const merged = `${short(totals.merged_fragments)} fragments merged`;
  put("upstream-more", joined(`${bytes(rates.upstream_bytes)}/s`, merged));
  drawTold("errors-line", history.errors, 60, history.step_seconds);
  put("errors-rate", short(rates.errors));
  put("errors-more", joined(`${short(totals.errors)} since the start`, `${short(totals.rejections)} rejected here`));
  setClass(byId("errors-tile"), "failing", rates.errors > 0);

  put("requests-in-flight", exact(status.requests_in_flight));
  put("requests-max", `of ${exact(status.requests_in_flight_max)}`);
  drawFill(byId("requests-bar"), status.requests_in_flight / (status.requests_in_flight_max || 1));
  put("bytes-in-flight", bytes(status.bytes_in_flight));
  put("bytes-max", `of ${bytes(status.bytes_in_flight_max)}`);
  drawFill(byId("bytes-bar"), status.bytes_in_flight / (status.bytes_in_flight_max || 1));

  coresTable.update(status.cores, latest.now);
  setFacts(byId("ledger"), ledgerFacts(status.ledger));
  setFacts(byId("process"), processFacts(status));
}

/** The reasons of the ledger, in words. */
const REASONS = new Map(Object.entries({
  rejected: "rejected (4xx)", limited: "limited (429)", failed: "failed (5xx, none)", overloaded: "over a limit here",
  no_tenant: "no valid tenant", mapped: "dropped by the map", downgraded: "can't be downgraded",
}));

/**
 * A ledger, as a sum: what came in is what was stored, refused, or is on its way.
 * @returns {Fact[]}
 */
function ledgerFacts(/** @type {any} */ { received, stored, repeated, spooled, refused, in_flight, unaccounted }) {
  const share = (/** @type {number} */ number) => (received > 0 && number > 0 ? percent(number / received) : "");
  /** @returns {Fact} */
  const line = (/** @type {string} */ name, /** @type {number} */ number, more = share(number), className = "") => {
    return [name, (dd) => {
      setText(child(dd, "span", "number"), exact(number));
      setText(child(dd, "span", "share"), more);
    }, className];
  };
  const reasons = Object.entries(refused).filter(([, number]) => number).sort((a, b) => b[1] - a[1]);
  return [
    line("Received", received, "", "sum"),
    line("Stored", stored),
    ...(repeated ? [line("stored before", repeated)] : []),
    ...(spooled ? [line("spooled", spooled)] : []),
    ...reasons.map(([reason, number]) => line(REASONS.get(reason) ?? plain(reason), number)),
    line("In flight", in_flight),
    line("Unaccounted", unaccounted, unaccounted ? "not 0" : "", `sum ${unaccounted ? "bad" : "good"}-text`),
  ];
}

/** @returns {Fact[]} */
function processFacts(/** @type {any} */ status) {
  const { reload, slow, totals } = status;
  /** @type {Fact[]} */
  const facts = [
    ["Started", (dd) => setTime(dd, status.started_at, latest.now)],
    ["Last reload", (dd) => {
      if (reload.last_succeeded === false) return setText(dd, "failed; the older settings hold");
      setTime(dd, reload.last_success_at, latest.now);
    }, reload.last_succeeded === false ? "warn-text" : ""],
    ["Reloads", `${exact(reload.succeeded_total)} done, ${exact(reload.failed_total)} failed`],
    ["Slow tenants", `${exact(slow.tenants)}, their share is ${slow.share_percent}\u00a0%`],
    ["Slow parts", `${count(slow.refused_total)} refused, ${count(slow.cut_total)} cut`],
    ["Merges", `${short(totals.merges)} of ${short(totals.merged_fragments)} fragments`],
    ["Log lines dropped", exact(status.log_lines_dropped_total), status.log_lines_dropped_total ? "warn-text" : ""],
  ];
  if (reload.waiting_for_restart?.length) {
    facts.push(["Wait for a restart", plain(reload.waiting_for_restart.join(", ")), "warn-text mono"]);
  }
  return facts;
}

/** @type {Table<any>} */
const coresTable = new Table(byId("cores"), [
  { label: "Core", show: (cell, row) => setText(cell, String(row.core)) },
  {
    label: "CPU",
    show(cell, row) {
      drawFill(svgIn(cell, "fill"), row.cpu_percent / 100);
      setText(child(cell, "span"), percent(row.cpu_percent / 100));
    },
  },
  { label: "Connections", className: "num", show: (cell, row) => setNumber(cell, row.connections) },
  { label: "Lanes", className: "num", show: (cell, row) => setNumber(cell, row.lanes) },
  { label: "Waiting", className: "num", show: (cell, row) => setNumber(cell, row.waiting_fragments) },
  { label: "Requests", className: "num", show: (cell, row) => setNumber(cell, row.requests_total) },
  { label: "Upstream", className: "num", show: (cell, row) => setNumber(cell, row.upstream_requests_total) },
  {
    label: "Longest stall", className: "num",
    show(cell, row) {
      setText(cell, duration(row.longest_stall_seconds));
      setClass(cell, "warn-text", row.longest_stall_seconds >= 0.1);
    },
  },
], (row) => String(row.core));

/** @type {Column<any>[]} */
const ADDRESS_COLUMNS = [
  { label: "Address", className: "mono", show: (cell, row) => setCut(cell, row.address) },
  {
    label: "State",
    show(cell, row) {
      // An upstream's only address is never in backoff. Green would be a promise that it has not kept yet.
      const silent = row.state === "up" && row.last_answer_at === null;
      const backoff = `backoff, ${duration(row.backoff_seconds_left)} left`;
      setText(cell, silent ? "no answer yet" : row.state === "backoff" ? backoff : row.state);
      setClass(cell, "good-text", row.state === "up" && !silent);
      setClass(cell, "warn-text", silent);
      setClass(cell, "bad-text", row.state === "backoff");
      setClass(cell, "zero", row.state === "unused");
    },
  },
  { label: "In use", className: "num", show: (cell, row) => setNumber(cell, row.connections_in_use) },
  { label: "Idle", className: "num", show: (cell, row) => setNumber(cell, row.connections_idle) },
  { label: "Failures", className: "num", show: (cell, row) => setNumber(cell, row.failures_in_a_row) },
  {
    label: "Usual time", className: "num",
    show: (cell, row) => setText(cell, row.usual_seconds === null ? "–" : duration(row.usual_seconds)),
  },
  { label: "Last answer", className: "num", show: (cell, row, now) => setTime(cell, row.last_answer_at, now) },
];

/** @type {Map<string, {part: HTMLElement, title: HTMLElement, more: HTMLElement, table: Table<any>}>} */
const upstreamParts = new Map();

function makeUpstream(/** @type {string} */ name) {
  const part = document.createElement("div");
  part.className = "upstream";
  const title = document.createElement("h3");
  const more = document.createElement("p");
  const table = document.createElement("table");
  table.append(document.createElement("thead"), document.createElement("tbody"));
  table.setAttribute("aria-label", `Addresses of ${plain(name)}`);
  part.append(title, more, table);
  return { part, title, more, table: new Table(table, ADDRESS_COLUMNS, (row) => row.address) };
}

function showUpstreams(/** @type {any} */ answer) {
  latest.upstreams = answer;
  showHealth();
  const seen = new Set();
  for (const upstream of answer.upstreams) {
    const key = `${upstream.upstream} ${upstream.destination}`;
    seen.add(key);
    const parts = upstreamParts.get(key) ?? makeUpstream(key);
    if (!upstreamParts.has(key)) byId("upstreams").append(parts.part);
    upstreamParts.set(key, parts);
    setUntrusted(child(parts.title, "bdi"), `${upstream.upstream} · ${upstream.destination} · ${upstream.target}`);
    setText(parts.more, joined(
      `${exact(upstream.connections_open)} connections, ${exact(upstream.connections_idle)} idle`,
      counted(upstream.lanes, "lane"), `${exact(upstream.waiting_fragments)} waiting`,
      counted(upstream.slow_tenants, "slow tenant"), counted(upstream.receipts, "receipt"),
    ));
    parts.table.update(upstream.addresses, latest.now);
  }
  for (const [key, { part }] of upstreamParts) {
    if (seen.has(key)) continue;
    part.remove();
    upstreamParts.delete(key);
  }
}
