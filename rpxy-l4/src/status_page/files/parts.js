// Parts of cells: a number against its limit, and a state with its reason.

import { element, say, set } from './dom.js';
import { count } from './text.js';

/** A number against its limit, with a bar; the limit is left out where there is none. */
export function against(cell, value, limit) {
  let bar = cell.querySelector('.meter');
  if (!bar) {
    bar = element('span', { class: 'meter', 'aria-hidden': 'true' }, element('span'));
    cell.append(element('span'), bar);
  }
  say(cell.firstChild, limit ? `${count(value)} / ${count(limit)}` : count(value));
  bar.hidden = !limit;
  const part = limit ? Math.min(1, value / limit) : 0;
  bar.firstChild.style.width = `${(100 * part).toFixed(1)}%`;
  set(bar, 'class', `meter${part >= 0.9 ? ' bad' : part >= 0.75 ? ' warn' : ''}`);
}

/** A state as a word with a mark of its kind (`good`, `warn`, `bad` or `off`), and why. */
export function state(cell, kind, word, reason) {
  if (!cell.firstChild) cell.append(element('span'), element('span', { class: 'quiet reason' }));
  set(cell.firstChild, 'class', `pill ${kind}`);
  say(cell.firstChild, word);
  say(cell.lastChild, reason ?? '');
}
