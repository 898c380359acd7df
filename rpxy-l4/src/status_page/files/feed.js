// What the daemon tells: asked for again and again, with the token if it wants one, and the rates between two answers.

/** Time between two questions in milliseconds. */
const EVERY = 2000;
/** The same where an answer is large. */
const SELDOM = 5000;
const LARGE = 200_000;
/** Time for an answer. */
const PATIENCE = 8000;
/** Time over which rates are made. */
const WINDOW = 10_000;

/** Asks until told to stop. Calls back with an answer and the rates, that a token is wanted, or that there is no answer. */
export class Feed {
  #token = null;
  #timer = null;
  #asking = false;
  #paused = false;
  #locked = false;
  #every = EVERY;
  #past = [];
  #events;

  constructor(events) {
    this.#events = events;
    document.addEventListener('visibilitychange', () => this.#go());
  }

  /** Asks at once. */
  start() {
    this.#go();
  }

  /** Asks with this token from now on; it is nowhere but here. */
  login(token) {
    if (!/^[!-~]+$/.test(token)) {
      this.#events.locked(true);
      return;
    }
    this.#token = token;
    this.#locked = false;
    this.#go();
  }

  /** Asks no more, or again. */
  pause(paused) {
    this.#paused = paused;
    this.#go();
  }

  #go() {
    clearTimeout(this.#timer);
    if (!this.#locked && !this.#paused && !document.hidden && !this.#asking) this.#ask();
  }

  async #ask() {
    this.#asking = true;
    try {
      await this.#exchange();
    } finally {
      this.#asking = false;
      if (!this.#locked && !this.#paused && !document.hidden) this.#timer = setTimeout(() => this.#go(), this.#every);
    }
  }

  async #exchange() {
    const headers = this.#token === null ? {} : { Authorization: `Bearer ${this.#token}` };
    let answer, text;
    try {
      answer = await fetch('status.json', {
        headers, cache: 'no-store', credentials: 'omit', redirect: 'error', signal: AbortSignal.timeout(PATIENCE),
      });
      text = await answer.text();
    } catch {
      this.#events.lost('The daemon does not answer.');
      return;
    }
    this.#locked = answer.status === 401;
    if (this.#locked) {
      const refused = this.#token !== null;
      this.#token = null;
      this.#events.locked(refused);
    } else if (answer.ok) {
      this.#every = text.length > LARGE ? SELDOM : EVERY;
      const { overview, history } = JSON.parse(text);
      this.#events.told(overview, history, this.#rates(overview));
    } else {
      this.#events.lost(answer.status === 503 ? 'The daemon is stopping.' : `The daemon answers ${answer.status}.`);
    }
  }

  /** Rates between this answer and an earlier one: `of(counter)` is how much it grows in a second. */
  #rates(overview) {
    const last = this.#past.at(-1);
    if (last && (last.pid !== overview.pid || last.uptime_ms > overview.uptime_ms)) this.#past = [];
    while (this.#past.length > 1 && overview.uptime_ms - this.#past[1].uptime_ms >= WINDOW) this.#past.shift();
    const before = this.#past[0];
    const seconds = before ? (overview.uptime_ms - before.uptime_ms) / 1000 : 0;
    this.#past.push(overview);
    return { before, of: (now, then) => (seconds > 0 && then !== undefined ? Math.max(0, now - then) / seconds : null) };
  }
}
