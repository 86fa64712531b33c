// @ts-check
// The document: small writers that change only what differs, so that selections, focus and scroll positions survive
// each poll. Text from outside gets into the document as text only; nothing here parses markup.
"use strict";

const SVG = "http://www.w3.org/2000/svg";

/** The element with this ID, which index.html has. */
function byId(/** @type {string} */ id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`no element ${id}`);
  return /** @type {any} */ (found);
}

/** Our own text. */
function setText(/** @type {Element} */ element, /** @type {string} */ text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Text by the element's ID. */
function put(/** @type {string} */ id, /** @type {string} */ text) {
  setText(byId(id), text);
}

function setAttribute(/** @type {Element} */ element, /** @type {string} */ name, /** @type {string} */ value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

function setClass(/** @type {Element} */ element, /** @type {string} */ name, /** @type {boolean} */ on) {
  if (element.classList.contains(name) !== on) element.classList.toggle(name, on);
}

/** The first child with this tag, which is made if it is missing. */
function child(/** @type {Element} */ parent, /** @type {string} */ tag, className = "") {
  const found = parent.querySelector(`:scope > ${tag}${className && `.${className}`}`);
  if (found) return /** @type {HTMLElement} */ (found);
  const made = document.createElement(tag);
  if (className) made.className = className;
  parent.append(made);
  return made;
}

/** @type {WeakMap<Element, string>} */
const untrusted = new WeakMap();

/** Text from outside: isolated in its direction, and with every character in sight. */
function setUntrusted(/** @type {Element} */ bdi, /** @type {string} */ text) {
  if (untrusted.get(bdi) === text) return;
  untrusted.set(bdi, text);
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(UNSEEN)) {
    const mark = document.createElement("span");
    mark.className = "control";
    mark.textContent = picture(match[0]);
    parts.push(text.slice(end, match.index), mark);
    end = match.index + match[0].length;
  }
  bdi.replaceChildren(...parts, text.slice(end));
}

/** The same in an element of its own. */
function isolated(/** @type {string} */ text, className = "") {
  const bdi = document.createElement("bdi");
  bdi.className = className;
  setUntrusted(bdi, text);
  return bdi;
}

/** Untrusted text on one line. What does not fit is cut, and all of it is in the tooltip. */
function setCut(/** @type {Element} */ element, /** @type {string} */ text) {
  const bdi = child(element, "bdi", "cut");
  setUntrusted(bdi, text);
  setAttribute(bdi, "title", plain(text));
}

/** A moment, with the exact time in the tooltip. */
function setTime(/** @type {Element} */ element, /** @type {string|null} */ at, /** @type {number} */ now) {
  if (at === null) return setText(element, "never");
  const time = child(element, "time");
  setAttribute(time, "datetime", at);
  setAttribute(time, "title", at);
  setText(time, ago(at, now));
}

function svgPath(/** @type {SVGElement} */ svg, /** @type {string} */ name) {
  let path = svg.querySelector(`.${name}`);
  if (!path) {
    path = document.createElementNS(SVG, "path");
    path.setAttribute("class", name);
    svg.append(path);
  }
  return path;
}

/** Draws rates, the newest at the right. The scale begins at 0 and ends at the largest. */
function drawLine(/** @type {SVGElement} */ svg, /** @type {number[]} */ values, /** @type {number} */ places) {
  setAttribute(svg, "viewBox", "0 0 100 20");
  setAttribute(svg, "preserveAspectRatio", "none");
  const top = Math.max(...values, 0) || 1;
  const step = 100 / (places - 1);
  const points = values.map((value, index) => {
    const x = 100 - (values.length - 1 - index) * step;
    return `${x.toFixed(1)} ${(19 - (18 * value) / top).toFixed(1)}`;
  });
  const line = points.length > 1 ? `M${points.join("L")}` : "";
  setAttribute(svgPath(svg, "zero"), "d", "M0 19.5H100");
  setAttribute(svgPath(svg, "area"), "d", line && `${line}V19.5H${(100 - (values.length - 1) * step).toFixed(1)}Z`);
  setAttribute(svgPath(svg, "rate"), "d", line);
}

/** The same with what a screen reader says. */
/** @type {(id: string, values: number[], places: number, step: number) => number} */
function drawTold(id, values, places, step) {
  const svg = byId(id);
  drawLine(svg, values, places);
  const most = Math.max(...values, 0);
  const least = values.length ? Math.min(...values) : 0;
  setAttribute(svg, "aria-label",
    `Last ${duration(Math.max(values.length, 1) * step)}: between ${short(least)} and ${short(most)} per second`);
  return most;
}

/** Fills a bar to a share of 1. */
function drawFill(/** @type {SVGElement} */ svg, /** @type {number} */ share) {
  setAttribute(svg, "viewBox", "0 0 100 4");
  setAttribute(svg, "preserveAspectRatio", "none");
  let rect = svg.firstElementChild;
  if (!rect) {
    rect = document.createElementNS(SVG, "rect");
    rect.setAttribute("height", "4");
    svg.append(rect);
  }
  setAttribute(rect, "width", (100 * Math.min(Math.max(share, 0), 1)).toFixed(1));
  setClass(svg, "full", share >= 0.9);
}

/** An SVG of a class, made once in `parent`. */
function svgIn(/** @type {Element} */ parent, /** @type {string} */ className) {
  let svg = parent.querySelector("svg");
  if (!svg) {
    svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("class", className);
    svg.setAttribute("aria-hidden", "true");
    parent.append(svg);
  }
  return svg;
}

/**
 * Terms and their values. A value is our own text, or a function that fills its element.
 * @typedef {[string, string | ((dd: HTMLElement) => void), string?]} Fact
 */
function setFacts(/** @type {Element} */ dl, /** @type {Fact[]} */ facts) {
  while (dl.children.length > 2 * facts.length) dl.lastElementChild?.remove();
  facts.forEach(([name, value, className = ""], index) => {
    if (!dl.children[2 * index]) dl.append(document.createElement("dt"), document.createElement("dd"));
    const [dt, dd] = [dl.children[2 * index], /** @type {HTMLElement} */ (dl.children[2 * index + 1])];
    if (dt.textContent !== name || dd.dataset.form !== typeof value) dd.replaceChildren();
    dd.dataset.form = typeof value;
    setText(dt, name);
    if (dd.className !== className) dd.className = className;
    if (typeof value === "string") setText(dd, value);
    else value(dd);
  });
}

/** Says something to screen readers, once. */
function announce(/** @type {string} */ text) {
  put("announcement", text);
}
