// The worker, from the page's side: it always gets the newest state, and never two at a time.

import { nodeOfKey } from "./dom.js";

export class Engine {
  // source: the worker's script; shown: called with { view, state }, { without, state } or { problem }.
  constructor(source, { ready, failed, shown }) {
    Object.assign(this, { shown, waiting: null, running: null, number: 0 });
    const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    this.worker = new Worker(address);
    this.worker.addEventListener("error", (event) => failed(event.message || "the worker did not start"));
    this.worker.addEventListener("message", ({ data }) => {
      if ("ready" in data) ready(data.ready);
      else if ("failed" in data) failed(data.failed);
      else this.#answered(data);
    });
  }

  open(record, packed) {
    this.worker.postMessage({ open: { record, packed } }, [packed.buffer]);
  }

  // Asks for the view of a state; one that waits already is not run any more.
  ask(state) {
    this.waiting = { state };
    this.#next();
  }

  get idle() {
    return !this.running && !this.waiting;
  }

  #next() {
    if (this.running || !this.waiting) return;
    this.running = { number: ++this.number, ...this.waiting };
    this.waiting = null;
    this.worker.postMessage(this.running);
  }

  #answered({ number, ...answer }) {
    if (number !== this.running?.number) return;
    const { state, without } = this.running;
    this.running = null;
    // What a node does when it is off costs more passes: asked for only when nothing newer waits.
    const node = answer.view && state.node;
    if (node && !this.waiting && !without) this.waiting = { state, without: nodeOfKey(node) };
    this.shown({ ...answer, state, stale: Boolean(this.waiting && !this.waiting.without) });
    this.#next();
  }
}
