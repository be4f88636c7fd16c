// The notebook around the page, where there is one: both have one state. See notebook.js beside this folder.

import { fits } from "./store.js";

export class Host {
  constructor({ store, find }, known, say) {
    Object.assign(this, { store, known, say, told: "", joined: false });
    find("link").hidden = true; // the frame has no address of its own
  }

  // What the notebook asks for before is in its answer to this.
  ready(vocabulary) {
    this.known = { ...this.known, vocabulary };
    window.addEventListener("message", ({ source, data }) => {
      if (source === window.parent && data?.sparse_gpt?.state) this.#take(data.sparse_gpt.state);
    });
    this.#tell("ready", this.store.state);
  }

  // What the notebook asks for first goes before what the page starts with.
  show(state) {
    if (this.joined) this.#tell("state", state);
  }

  #tell(what, { prompt, twin, node, position, changes }) {
    const state = { prompt, twin, node, position, changes }, text = JSON.stringify(state);
    if (text === this.told) return;
    this.told = text;
    window.parent.postMessage({ sparse_gpt: { [what]: state } }, "*");
  }

  #take(given) {
    this.joined = true;
    const { state } = this.store, changed = Object.keys(given).filter((name) => differ(given[name], state[name]));
    if (!changed.length) return;
    if (!fits({ ...state, ...given }, this.known)) return void this.say("The notebook asks for what this circuit has not.");
    this.store.set(Object.fromEntries(changed.map((name) => [name, given[name]])));
  }
}

function differ(some, other) {
  return JSON.stringify(some) !== JSON.stringify(other);
}
