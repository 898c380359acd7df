// Tables that stay still: rows are found again by their key, and only what has changed is written.

import { arrange, element, say, set, show } from './dom.js';
import { count } from './text.js';

/** Rows that are shown at first, unless a table says another number. */
const FIRST = 25;
/** Rows that need no filter. */
const FEW = 5;

/**
 * A table with sorting and, where it may be long, a filter.
 *
 * Columns are `{ name, text(row) }` or `{ name, fill(cell, row) }`, with `sort(row)` where rows can be ordered by them,
 * `number` for numbers, and `about` for what the name does not say. Rows have a `key`, and a `search` in lower case.
 */
export class Table {
  #columns;
  #rows = [];
  #shown = new Map();
  #body = element('tbody');
  #heads;
  #empty;
  #filter = null;
  #filtered = null;
  #all = false;
  #more;
  #by = null;
  #descending = false;
  #frame;
  #tools = null;
  #first;

  constructor(parent, { caption, columns, empty, filter, by = null, descending = false, first = FIRST }) {
    this.#columns = columns;
    [this.#by, this.#descending, this.#first] = [by, descending, first];
    this.#heads = columns.map((column, index) => this.#head(column, index));
    this.#empty = element('p', { class: 'quiet empty' }, empty);
    this.#more = element('button', { type: 'button', class: 'more' });
    this.#more.addEventListener('click', () => {
      this.#all = !this.#all;
      this.#draw();
    });
    const table = element('table', {}, element('caption', {}, caption),
      element('thead', {}, element('tr', {}, ...this.#heads)), this.#body);
    this.#frame = element('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': caption }, table);
    if (filter) {
      this.#filter = element('input', { type: 'search', placeholder: filter, 'aria-label': filter, autocomplete: 'off', spellcheck: 'false' });
      this.#filtered = element('span', { class: 'quiet', role: 'status' });
      this.#filter.addEventListener('input', () => this.#draw());
      this.#tools = element('div', { class: 'tools' }, this.#filter, this.#filtered);
      parent.append(this.#tools);
    }
    parent.append(this.#frame, this.#empty, this.#more);
    this.#draw();
  }

  /** Shows `rows`, in their order where none is chosen. */
  update(rows) {
    this.#rows = rows;
    this.#draw();
  }

  #head(column, index) {
    const head = element('th', { scope: 'col', class: column.number ? 'number' : '' });
    if (column.about) set(head, 'title', column.about);
    if (!column.sort) {
      head.append(column.name);
      return head;
    }
    const button = element('button', { type: 'button' }, column.name);
    button.addEventListener('click', () => {
      this.#descending = this.#by === index ? !this.#descending : Boolean(column.number);
      this.#by = index;
      this.#draw();
    });
    head.append(button);
    return head;
  }

  #draw() {
    const wanted = (this.#filter?.value ?? '').trim().toLowerCase();
    const matching = wanted ? this.#rows.filter((row) => row.search.includes(wanted)) : [...this.#rows];
    this.#order(matching);
    const shown = this.#all ? matching : matching.slice(0, this.#first);
    const keys = new Set();
    arrange(this.#body, shown.map((row) => {
      keys.add(row.key);
      return this.#line(row);
    }));
    for (const key of this.#shown.keys()) if (!keys.has(key)) this.#shown.delete(key);
    show(this.#frame, shown.length > 0);
    show(this.#empty, this.#rows.length === 0);
    show(this.#more, matching.length > this.#first);
    say(this.#more, this.#all ? `Show the first ${this.#first}` : `Show all ${count(matching.length)}`);
    if (this.#filtered) {
      show(this.#tools, this.#rows.length > FEW || wanted !== '');
      say(this.#filtered, wanted ? `${count(matching.length)} of ${count(this.#rows.length)}` : '');
    }
  }

  #order(rows) {
    this.#heads.forEach((head, index) => {
      set(head, 'aria-sort', index === this.#by ? (this.#descending ? 'descending' : 'ascending') : null);
    });
    if (this.#by === null) return;
    const { sort } = this.#columns[this.#by];
    const sign = this.#descending ? -1 : 1;
    // What is not known comes last, either way.
    rows.sort((a, b) => {
      const [x, y] = [sort(a) ?? null, sort(b) ?? null];
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (typeof x === 'string' ? x.localeCompare(y, 'en', { numeric: true }) : x - y);
    });
  }

  #line(row) {
    let line = this.#shown.get(row.key);
    if (!line) {
      line = element('tr', {}, ...this.#columns.map((column, index) =>
        (index === 0 ? element('th', { scope: 'row' }) : element('td', { class: column.number ? 'number' : '' }))));
      this.#shown.set(row.key, line);
    }
    this.#columns.forEach((column, index) => {
      const cell = line.children[index];
      if (column.fill) column.fill(cell, row);
      else say(cell, column.text(row));
    });
    return line;
  }
}
