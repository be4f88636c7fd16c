// The worker, from the page's side: it always gets the newest state, and never two at a time.

import { nodeOfKey } from "./dom.js";

const FEW = 8; // chores at once: what is typed meanwhile waits for them

export class Engine {
  // source: the worker's script; shown: called with { view, state }, { without, state }, { effects, of: nodes, state },
  // { samples: decisions, of: samples, state } or { problem }.
  constructor(source, { ready, failed, shown }) {
    Object.assign(this, { source, ready, failed, shown, waiting: null, running: null, chores: {}, number: 0 });
  }

  // Policies of some notebooks allow workers from data: alone.
  open(record, packed) {
    const blob = URL.createObjectURL(new Blob([this.source], { type: "text/javascript" }));
    const start = () => this.#start(`data:text/javascript,${encodeURIComponent(this.source)}`, { record, packed }, this.failed);
    this.#start(blob, { record, packed }, start);
  }

  // `otherwise` is called when the worker does not start; one that has started takes the model's bytes away from the page.
  #start(address, opened, otherwise) {
    let started = false;
    const refused = (reason) => (started ? this.failed : otherwise)(reason || "the worker did not start");
    try {
      this.worker = new Worker(address);
    } catch (error) {
      return void refused(error.message);
    }
    this.worker.addEventListener("error", ({ message }) => refused(message));
    this.worker.addEventListener("message", ({ data }) => {
      if ("started" in data) {
        started = true;
        this.worker.postMessage({ open: opened }, [opened.packed.buffer]);
      } else if ("ready" in data) this.ready(data.ready);
      else if ("failed" in data) this.failed(data.failed);
      else this.#answered(data);
    });
  }

  // Asks for the view of a state; one that waits already is not run any more.
  ask(state) {
    this.waiting = { state };
    this.#next();
  }

  // Many small things, a few at a time, whenever nothing else waits: "effects" of nodes, decisions on "samples".
  does(kind, state, todo) {
    this.chores[kind] = { state, todo: [...todo] };
    this.#next();
  }

  forget(kind) {
    delete this.chores[kind];
  }

  // Whether they were asked for, done or not.
  wasAsked(kind) {
    return kind in this.chores;
  }

  #chore() {
    const [kind, chore] = Object.entries(this.chores).find(([, { todo }]) => todo.length) ?? [];
    return chore ? { state: chore.state, [kind]: chore.todo.splice(0, FEW) } : null;
  }

  #next() {
    if (this.running) return;
    const next = this.waiting ?? this.#chore();
    if (!next) return;
    this.running = { number: ++this.number, ...next };
    this.waiting = null;
    this.worker.postMessage(this.running);
  }

  #answered({ number, ...answer }) {
    if (number !== this.running?.number) return;
    const { state, without, effects, samples } = this.running;
    this.running = null;
    // What a node does when it is off costs more passes: asked for only when nothing newer waits.
    const node = answer.view && state.node;
    if (node && !this.waiting && !without && !samples) this.waiting = { state, without: nodeOfKey(node) };
    this.shown({ ...answer, of: effects ?? samples, state, stale: Boolean(this.waiting && !this.waiting.without) });
    this.#next();
  }
}
