// @ts-check
// Tables whose rows are kept from poll to poll, by key.
"use strict";

/**
 * @template Row
 * @typedef {object} Column
 * @property {string} label
 * @property {string} [className] of its cells
 * @property {string} [sort] what the API calls it, if it can sort by it
 * @property {(cell: HTMLElement, row: Row, now: number) => void} show fills a cell, which may have an older value
 */

/** @template Row */
class Table {
  /**
   * @param {HTMLTableElement} table
   * @param {Column<Row>[]} columns
   * @param {(row: Row) => string} keyOf
   */
  constructor(table, columns, keyOf) {
    this.table = table;
    this.columns = columns;
    this.keyOf = keyOf;
    // With display: block a table loses its roles unless they are named.
    this.named = table.getAttribute("role") === "table";
    this.body = table.tBodies[0];
    /** @type {Map<string, HTMLTableRowElement>} */
    this.rows = new Map();
    this.makeHead();
  }

  makeHead() {
    const row = document.createElement("tr");
    if (this.named) row.setAttribute("role", "row");
    for (const { label, className = "", sort } of this.columns) {
      const th = document.createElement("th");
      th.scope = "col";
      th.className = className;
      if (this.named) th.setAttribute("role", "columnheader");
      if (sort) {
        const button = document.createElement("button");
        button.type = "button";
        button.dataset.sort = sort;
        button.textContent = label;
        th.append(button);
      } else {
        th.textContent = label;
      }
      row.append(th);
    }
    this.table.tHead?.replaceChildren(row);
  }

  makeRow() {
    const row = document.createElement("tr");
    if (this.named) row.setAttribute("role", "row");
    for (const { label, className = "" } of this.columns) {
      const cell = document.createElement("td");
      cell.className = className;
      cell.dataset.label = label;
      if (this.named) cell.setAttribute("role", "cell");
      row.append(cell);
    }
    return row;
  }

  fill(/** @type {HTMLTableRowElement} */ row, /** @type {Row} */ values, /** @type {number} */ now) {
    this.columns.forEach(({ show }, index) => show(row.cells[index], values, now));
  }

  /** Shows these rows, in their order. */
  update(/** @type {Row[]} */ all, /** @type {number} */ now) {
    const before = this.rows;
    this.rows = new Map();
    let place = this.body.firstElementChild;
    for (const values of all) {
      const key = this.keyOf(values);
      if (this.rows.has(key)) continue;
      const row = before.get(key) ?? this.makeRow();
      before.delete(key);
      this.rows.set(key, row);
      if (row === place) place = place.nextElementSibling;
      else this.body.insertBefore(row, place);
      setClass(row, "gone", false);
      this.fill(row, values, now);
    }
    for (const row of before.values()) row.remove();
  }

  /** New values in the old order, for as long as somebody points at a row. Rows that are not among `all` look pale. */
  updateInPlace(/** @type {Row[]} */ all, /** @type {number} */ now) {
    const found = new Map(all.map((values) => [this.keyOf(values), values]));
    for (const [key, row] of this.rows) {
      const values = found.get(key);
      setClass(row, "gone", !values);
      if (values) this.fill(row, values, now);
    }
  }

  /** Marks the column that the rows are sorted by. */
  setSort(/** @type {string} */ sort, /** @type {string} */ order) {
    this.table.dataset.sort = sort;
    this.columns.forEach((column, index) => {
      const th = this.table.tHead?.rows[0].cells[index];
      if (column.sort === sort) th?.setAttribute("aria-sort", order === "asc" ? "ascending" : "descending");
      else th?.removeAttribute("aria-sort");
    });
  }
}

/** A number, pale if it is zero. */
function setNumber(/** @type {HTMLElement} */ cell, /** @type {number} */ number, text = count(number)) {
  setText(cell, text);
  setClass(cell, "zero", number === 0);
}

/** A rate, likewise. */
function setRate(/** @type {HTMLElement} */ cell, /** @type {number} */ rate) {
  setNumber(cell, rate, short(rate));
}
