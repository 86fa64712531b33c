// @ts-check
// Views, addresses and polling. The last of the scripts: it starts the page.
"use strict";

const VIEWS = ["overview", "tenant", "explain", "settings"];
const TITLES = new Map(Object.entries({
  overview: "Overview", tenants: "Tenants", explain: "Explain", settings: "Settings",
}));

/** Where the address leads. `#/tenants` is the overview with its table only. */
let route = parseRoute(location.hash);

function parseRoute(/** @type {string} */ hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const parameters = new URLSearchParams(query);
  const [name, argument = ""] = path.split(/\/(.*)/s);
  if (name === "tenant") return { view: "tenant", name, argument: decoded(argument), parameters };
  if (name === "explain" || name === "settings") return { view: name, name, argument: "", parameters };
  return { view: "overview", name: name === "tenants" ? name : "overview", argument: "", parameters };
}

/** A part of the address. It may be anything, as it is typed by hand. */
function decoded(/** @type {string} */ text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Changes the address: as a step that the browser's "back" undoes, or in place. */
function go(/** @type {string} */ hash, /** @type {boolean} */ inPlace) {
  if (inPlace) {
    history.replaceState(null, "", hash);
    follow(false);
  } else if (location.hash === hash) {
    follow(false);
  } else {
    location.hash = hash;
  }
}

/** Shows the view of the address, and asks for what it needs. After a step, the focus goes along. */
function follow(/** @type {boolean} */ step) {
  const before = route;
  route = parseRoute(location.hash);
  showView(before);
  if (step && (before.name !== route.name || before.argument !== route.argument)) moveFocus(before);
  for (const source of SOURCES) if (source !== statusSource) refresh(source);
}

function showView(/** @type {typeof route} */ before) {
  if (before.view === "overview" && route.view !== "overview") tenantsAsked = before.parameters;
  for (const view of VIEWS) byId(`view-${view}`).hidden = view !== route.view;
  for (const link of document.querySelectorAll("nav a")) {
    const name = route.view === "tenant" ? "tenants" : route.name;
    if (/** @type {HTMLElement} */ (link).dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  setClass(byId("view-overview"), "tenants-only", route.name === "tenants");
  document.title = `${TITLES.get(route.name) ?? plain(route.argument).slice(0, 80)} · Tenantry`;
  if (route.view === "overview") showTenantsForm();
  if (route.view === "tenant") beginTenant();
  if (route.view === "explain") beginExplain();
  if (route.view === "settings") settings = null;
}

function moveFocus(/** @type {typeof route} */ before) {
  // Back from a tenant's view, the focus is where it was.
  const link = before.view === "tenant" && route.view === "overview" && tenantLink(before);
  if (link) return link.focus();
  byId(`${route.name}-title`).focus({ preventScroll: true });
  scrollTo(0, 0);
}

/** The link in the table that led to a tenant's view, if it is still there. */
function tenantLink(/** @type {typeof route} */ { argument, parameters }) {
  const href = tenantHash({ tenant: argument, destination: parameters.get("destination") });
  const links = /** @type {HTMLAnchorElement[]} */ ([...tenantsTable.body.querySelectorAll("td.name a")]);
  return links.find((link) => link.getAttribute("href") === href);
}

const statusSource = new Source(() => "api/v1/status", showStatus);
const upstreamsSource = new Source(() => (route.view === "overview" ? "api/v1/upstreams" : null), showUpstreams);
const SOURCES = [statusSource, tenantsSource, upstreamsSource, tenantSource, explainSource, settingsSource];

/** When the last answer came, by the browser's clock. */
let answeredAt = Date.now();

/** Asks for one thing out of turn, or as part of a round. Says whether that went well. */
async function refresh(/** @type {Source} */ source) {
  try {
    await source.refresh();
    return true;
  } catch (error) {
    showLost(error);
    return false;
  }
}

async function round() {
  const answered = (await Promise.all(SOURCES.map(refresh))).every(Boolean);
  if (answered) showLive();
  return answered;
}

function showLive() {
  answeredAt = Date.now();
  const connection = byId("connection");
  setAttribute(connection, "data-state", "live");
  setText(connection, "live");
  byId("lost").hidden = true;
  setClass(document.body, "old", false);
}

/** Says that what is shown is old, and since when. The text stays the same meanwhile, so it is read out once. */
function showLost(/** @type {any} */ error) {
  const connection = byId("connection");
  setAttribute(connection, "data-state", "lost");
  setText(connection, "no answer");
  setClass(document.body, "old", true);
  const since = new Date(answeredAt).toLocaleTimeString([], { hour12: false });
  const lost = byId("lost");
  lost.hidden = false;
  if (error instanceof Refusal) {
    setText(lost, "The server wants a user and a password, or other ones. Load the page again to give them.");
  } else {
    setText(lost, `No answer from the server since ${since}. What is shown is from then. Trying again.`);
  }
}

function start() {
  byId("skip").addEventListener("click", (/** @type {Event} */ event) => {
    event.preventDefault();
    byId("content").focus();
  });
  startTenants();
  startExplain();
  startSettings();
  addEventListener("hashchange", () => follow(true));
  const poller = new Poller(round);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) return;
    const connection = byId("connection");
    setAttribute(connection, "data-state", "wait");
    setText(connection, "paused");
  });
  showView(route);
  poller.start();
}

start();
