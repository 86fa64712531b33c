// @ts-check
// Asks the API. Answers that are late are dropped, and a slow server is asked less often.
"use strict";

const POLL_MILLIS = 2000;
const POLL_MILLIS_MAX = 30000;
const ANSWER_MILLIS_MAX = 10000;

/** The server's own answer that something is wrong. Asking again as soon does not help. */
class Refusal extends Error {
  constructor(/** @type {number} */ status, /** @type {string} */ text) {
    super(text);
    this.status = status;
  }
}

/** Gets JSON. Throws a Refusal for 400, 401, 403 and 404, and another error if there was no useful answer. */
async function getJson(/** @type {string} */ path, /** @type {AbortSignal} */ signal) {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MILLIS_MAX)]);
  const answer = await fetch(path, { signal: limit, cache: "no-store", credentials: "same-origin" });
  if (answer.ok) return answer.json();
  if (![400, 401, 403, 404].includes(answer.status)) throw new Error(`status ${answer.status}`);
  const body = await answer.json().catch(() => ({}));
  throw new Refusal(answer.status, typeof body.error === "string" ? body.error : `status ${answer.status}`);
}

/** One thing that the page shows. `path` says where it is at the moment, or null if it is not in sight. */
class Source {
  /**
   * @param {() => string|null} path
   * @param {(data: any, path: string) => void} show
   * @param {(refusal: Refusal) => void} [refuse]
   */
  constructor(path, show, refuse) {
    this.path = path;
    this.show = show;
    this.refuse = refuse;
    this.asking = new AbortController();
  }

  /** Asks, and shows the answer unless there is a newer question by then. Throws if there was no answer. */
  async refresh() {
    this.asking.abort();
    const path = this.path();
    if (path === null) return;
    const asking = (this.asking = new AbortController());
    try {
      const data = await getJson(path, asking.signal);
      if (!asking.signal.aborted) this.show(data, path);
    } catch (error) {
      if (asking.signal.aborted) return;
      if (!(error instanceof Refusal) || error.status === 401 || error.status === 403 || !this.refuse) throw error;
      this.refuse(error);
    }
  }
}

/** Runs rounds of questions while the page is in sight. */
class Poller {
  /**
   * @param {() => Promise<boolean>} round never rejects, and says whether there were answers
   */
  constructor(round) {
    this.round = round;
    this.timer = 0;
    this.running = false;
    document.addEventListener("visibilitychange", () => this.start());
  }

  /** Begins a round now, if the page is in sight and none is running. */
  async start() {
    clearTimeout(this.timer);
    if (document.hidden || this.running) return;
    this.running = true;
    const begun = performance.now();
    const answered = await this.round();
    this.running = false;
    // Many browsers must not keep a busy server from its work.
    const busy = answered ? Math.min(10 * (performance.now() - begun), POLL_MILLIS_MAX) : 0;
    const pause = Math.max(POLL_MILLIS, busy);
    if (!document.hidden) this.timer = setTimeout(() => this.start(), pause);
  }
}
