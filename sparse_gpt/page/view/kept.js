// Names of a circuit's nodes from one visit to the next, in the browser's storage. Pages from files and frames may have
// none: then leaving the page asks first.

import { areNames, hasNames, namesByKeys } from "./names.js";

export class KeptNames {
  constructor({ record: { task, params_sha256 }, file, keys, hosted }) {
    Object.assign(this, { place: `sparse_gpt names of circuit ${file}, ${params_sha256}`, asks: !hosted, works: true });
    const before = `sparse_gpt names of ${task}, ${params_sha256}`; // once of all circuits of a task: it is read, and left as it is
    let found = null;
    try {
      found = JSON.parse(localStorage.getItem(this.place) ?? localStorage.getItem(before));
    } catch {
      this.works = false;
    }
    const { mine, others } = namesByKeys(found, keys);
    this.names = hasNames(mine) || areNames(found, keys) ? mine : null;
    this.others = others; // of nodes that this circuit does not have: they stay for one that does
  }

  write(names) {
    const { labels, groups } = this.others, all = { labels: { ...labels, ...names.labels }, groups: { ...groups, ...names.groups } };
    this.names = names;
    try {
      localStorage.setItem(this.place, JSON.stringify({ ...names, ...all }));
    } catch {
      this.works = false;
    }
    if (this.works || !this.asks) return;
    window.addEventListener("beforeunload", (event) => event.preventDefault()); // only then: browsers keep no page that has it
    this.asks = false;
  }
}
