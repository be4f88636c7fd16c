// Names of a circuit's nodes from one visit to the next, in the browser's storage. Pages from files and frames may have
// none: then leaving the page asks first.

import { areNames } from "./names.js";

export class KeptNames {
  constructor({ task, params_sha256 }, keys, asks) {
    Object.assign(this, { place: `sparse_gpt names of ${task}, ${params_sha256}`, asks, works: true });
    try {
      this.names = JSON.parse(localStorage.getItem(this.place));
    } catch {
      this.works = false;
    }
    if (!this.names || !areNames(this.names, keys)) this.names = null;
  }

  write(names) {
    try {
      localStorage.setItem(this.place, JSON.stringify(names));
    } catch {
      this.works = false;
    }
    if (this.works || !this.asks) return;
    window.addEventListener("beforeunload", (event) => event.preventDefault()); // only then: browsers keep no page that has it
    this.asks = false;
  }
}
