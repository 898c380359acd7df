// A plot of the last minutes: lines over a common scale, the same elements from answer to answer.

import { element, say, set } from './dom.js';

const SVG = 'http://www.w3.org/2000/svg';
/** Width and height of the drawing; it is stretched to its place. */
const WIDTH = 600;
const HEIGHT = 100;
/** Seconds that a plot shows. */
export const SPAN = 600;

/** The least of 1, 2, 5, 10, 20, .. that is not below `value`. */
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value) ?? 10 * power;
}

function drawn(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  return made;
}

/** A figure with a title, the value of now, a plot and its legend. */
export class Plot {
  #now;
  #more;
  #top;
  #svg;
  #areas;
  #lines;
  #mark;
  #legend;
  #series;
  #format;
  #title;
  #points = [];

  /** Shows `series`, an array of names, with values that `format` makes texts of; `least` is the least scale. */
  constructor(parent, title, series, format, least = 1) {
    [this.#title, this.#series, this.#format] = [title, series, format];
    this.least = least;
    this.#now = element('p', { class: 'now' });
    this.#more = element('p', { class: 'quiet more' });
    this.#top = element('span', { class: 'quiet scale' });
    this.#legend = element('p', { class: 'quiet legend' });
    this.#svg = drawn('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img' });
    const grid = [0, 0.5, 1].map((at) => drawn('line', { class: 'grid', x1: 0, x2: WIDTH, y1: at * HEIGHT, y2: at * HEIGHT }));
    this.#areas = series.map((_, index) => drawn('path', { class: `area s${index}` }));
    this.#lines = series.map((_, index) => drawn('path', { class: `series s${index}` }));
    this.#mark = drawn('line', { class: 'mark', y1: 0, y2: HEIGHT, visibility: 'hidden' });
    this.#svg.append(...grid, ...this.#areas, ...this.#lines, this.#mark);
    this.#svg.addEventListener('pointermove', (event) => this.#point(event));
    this.#svg.addEventListener('pointerleave', () => this.#leave());
    this.figure = element('figure', { class: 'card plot' },
      element('figcaption', {}, element('h3', {}, title), this.#now, this.#more),
      element('div', { class: 'drawing' }, this.#top, this.#svg),
      element('div', { class: 'axis' }, this.#legend));
    parent.append(this.figure);
    this.#leave();
  }

  /** Shows points of `{ age, values }`, the oldest first, the value of now, and more about it. */
  update(points, now, more) {
    this.#points = points.filter((point) => point.age <= SPAN);
    say(this.#now, now);
    say(this.#more, more);
    const most = Math.max(0, ...this.#points.flatMap((point) => point.values));
    const scale = ceiling(Math.max(most, this.least));
    say(this.#top, this.#format(scale));
    const x = (point) => (WIDTH * (1 - point.age / SPAN)).toFixed(1);
    this.#series.forEach((_, index) => {
      const y = (point) => (HEIGHT * (1 - point.values[index] / scale)).toFixed(1);
      const path = this.#points.map((point) => `${x(point)},${y(point)}`).join('L');
      const [first, last] = [this.#points[0], this.#points.at(-1)];
      set(this.#lines[index], 'd', path && `M${path}`);
      set(this.#areas[index], 'd', path && `M${x(first)},${HEIGHT}L${path}L${x(last)},${HEIGHT}Z`);
    });
    set(this.#svg, 'aria-label', `${this.#title} over the last ${SPAN / 60} minutes: now ${now}, at most ${this.#format(most)}`);
  }

  #point(event) {
    const box = this.#svg.getBoundingClientRect();
    const age = SPAN * (1 - (event.clientX - box.left) / box.width);
    const nearest = this.#points.reduce((best, point) =>
      (best && Math.abs(best.age - age) <= Math.abs(point.age - age) ? best : point), null);
    if (!nearest) return;
    const at = WIDTH * (1 - nearest.age / SPAN);
    for (const end of ['x1', 'x2']) set(this.#mark, end, at);
    set(this.#mark, 'visibility', 'visible');
    const values = this.#series.map((name, index) => `${name} ${this.#format(nearest.values[index])}`);
    const minutes = Math.floor(nearest.age / 60);
    this.#legend.replaceChildren(`${minutes} min ${Math.round(nearest.age % 60)} s ago: ${values.join(', ')}`);
  }

  #leave() {
    set(this.#mark, 'visibility', 'hidden');
    const names = this.#series.length > 1
      ? this.#series.map((name, index) => element('span', { class: `key s${index}` }, name))
      : [];
    this.#legend.replaceChildren(element('span', {}, `${SPAN / 60} min ago`), ...names, element('span', {}, 'now'));
  }
}
