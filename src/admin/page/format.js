// @ts-check
// Numbers, times and names as text. Nothing here touches the document.
"use strict";

/** Scales a number to three significant digits. */
function scaled(/** @type {number} */ number, /** @type {number} */ base, /** @type {string[]} */ units) {
  let unit = 0;
  let size = Math.abs(number);
  // 999.5 would be shown as 1000.
  while (size >= (unit ? 999.5 : 1000) && unit < units.length - 1) {
    size /= base;
    unit += 1;
  }
  let digits = unit === 0 ? (size < 10 && size % 1 ? 1 : 0) : size < 9.995 ? 2 : size < 99.95 ? 1 : 0;
  if (unit === 0 && size > 0 && size < 0.1) digits = 2;
  const text = `${number < 0 ? "−" : ""}${size.toFixed(digits)}`;
  return units[unit] ? `${text}\u00a0${units[unit]}` : text;
}

/** A number of things or a rate: 12, 3.4, 1.24 k, 17.3 M. */
function short(/** @type {number} */ number) {
  return scaled(number, 1000, ["", "k", "M", "G", "T", "P"]);
}

/** Every digit of a count. */
function exact(/** @type {number} */ number) {
  return number.toLocaleString("en");
}

/** A count: every digit, as long as they are few. */
function count(/** @type {number} */ number) {
  return number < 1e5 ? exact(number) : short(number);
}

/** A number of bytes. */
function bytes(/** @type {number} */ number) {
  return scaled(number, 1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]);
}

/** A duration in seconds, in its two largest units. */
function duration(/** @type {number} */ seconds) {
  return durationText(seconds).replaceAll(" ", "\u00a0");
}

function durationText(/** @type {number} */ seconds) {
  if (seconds <= 0) return "0 s";
  if (seconds < 0.001) return `${Math.max(1, Math.round(seconds * 1e6))} µs`;
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const days = Math.floor(whole / 86400);
  const [hours, minutes] = [Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  if (days) return hours ? `${days} d ${hours} h` : `${days} d`;
  if (hours) return minutes ? `${hours} h ${minutes} min` : `${hours} h`;
  if (minutes) return whole % 60 && minutes < 10 ? `${minutes} min ${whole % 60} s` : `${minutes} min`;
  return `${whole} s`;
}

/** How long ago `time` was, by the server's clock: the browser's may be wrong. */
function ago(/** @type {string} */ time, /** @type {number} */ now) {
  const seconds = Math.floor((now - Date.parse(time)) / 1000);
  if (seconds < 1) return "just now";
  return `${seconds < 10 ? `${seconds}\u00a0s` : duration(seconds)}\u00a0ago`;
}

/** A share of 1 as a percentage. */
function percent(/** @type {number} */ share) {
  const value = share * 100;
  if (value > 0 && value < 0.1) return "<\u00a00.1\u00a0%";
  // What is not quite everything must not look like it.
  const digits = value > 0 && (value < 10 || (value > 99 && value < 100)) ? 1 : 0;
  return `${(value < 100 ? Math.min(value, 99.9) : value).toFixed(digits)}\u00a0%`;
}

/** Statements in a row. */
function joined(/** @type {string[]} */ ...statements) {
  return statements.join(" · ");
}

/** `one` or `many`, after the number. */
function counted(/** @type {number} */ number, /** @type {string} */ one, many = `${one}s`) {
  return `${exact(number)} ${number === 1 ? one : many}`;
}

// Characters that a name could use to look like another one, or to change the text around it: controls, formats (among
// them those of direction), separators of lines, halves of surrogate pairs, and letters that have no shape.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\u115f\u1160\u2800\u3164\uffa0]/gu;

const ESCAPES = new Map([["\t", "\\t"], ["\n", "\\n"], ["\r", "\\r"]]);

/** What is shown in place of such a character: \n for a line feed, U+202E for a right-to-left override. */
function picture(/** @type {string} */ character) {
  const code = character.codePointAt(0) ?? 0;
  const digits = code.toString(16);
  return ESCAPES.get(character)
    ?? (code < 0x100 ? `\\x${digits.padStart(2, "0")}` : `U+${digits.toUpperCase().padStart(4, "0")}`);
}

/** Text from outside for an attribute, where it can't be isolated. */
function plain(/** @type {string} */ text) {
  return text.replace(UNSEEN, (character) => `‹${picture(character)}›`);
}

/** encodeURIComponent, which throws for half of a surrogate pair. */
function encoded(/** @type {string} */ text) {
  return encodeURIComponent(text.replace(/\p{Cs}/gu, "\ufffd"));
}
