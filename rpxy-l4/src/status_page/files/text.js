// Values as text. What strangers chose only ever becomes text, with what a viewer could obey made visible.

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });
const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];

/** Shown where nothing is known. */
export const NOTHING = '–';

/** A count. */
export function count(value) {
  return value === null || value === undefined ? NOTHING : whole.format(value);
}

/** A count a second. */
export function rate(value) {
  if (value === null || value === undefined) return NOTHING;
  if (value === 0) return '0';
  if (value < 0.1) return '<0.1';
  return value < 10 ? tenth.format(value) : whole.format(value);
}

/** Bytes, with a unit of powers of 1000. */
export function bytes(value) {
  if (value === null || value === undefined) return NOTHING;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value < 10 && unit > 0 ? tenth.format(value) : whole.format(value)} ${units[unit]}`;
}

/** Bytes a second. */
export function throughput(value) {
  return value === null || value === undefined ? NOTHING : `${bytes(value)}/s`;
}

/** A short time, given in microseconds. */
export function latency(micros) {
  if (micros === null || micros === undefined) return NOTHING;
  if (micros < 1000) return `${whole.format(micros)} µs`;
  if (micros < 10_000) return `${tenth.format(micros / 1000)} ms`;
  return micros < 1_000_000 ? `${whole.format(micros / 1000)} ms` : `${tenth.format(micros / 1_000_000)} s`;
}

/** A duration in its two largest units, given in seconds. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return NOTHING;
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

/** How long ago something was, given in seconds: the largest unit alone. */
export function ago(seconds) {
  return `${duration(seconds).split(' ').slice(0, 2).join(' ')} ago`;
}

/** A part of a whole. */
export function percent(part, of) {
  if (!of) return NOTHING;
  const value = (100 * part) / of;
  if (value > 0 && value < 0.1) return '<0.1 %';
  return `${value < 10 ? tenth.format(value) : whole.format(value)} %`;
}

/** Text of strangers: controls, and what changes the direction of text or is not to be seen, as escapes. */
export function foreign(text) {
  return String(text).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

/** Words of the daemon, which writes them with underscores. */
export function words(text) {
  return foreign(text).replaceAll('_', ' ');
}
