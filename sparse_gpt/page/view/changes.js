// The list of what a person has changed, undo and redo, and the link to a state.

import { button, element, signed, takesText } from "./dom.js";
import { stateToHash } from "./store.js";

const WHERE = { circuit: "in the circuit", full: "in the full model", both: "in circuit and model" };

export class ChangesView {
  constructor(page) {
    Object.assign(this, page);
    const { store } = page;
    this.find("changes").tabIndex = -1; // takes the focus when the last change is removed
    this.find("undo").addEventListener("click", () => store.undo());
    this.find("redo").addEventListener("click", () => store.redo());
    this.find("reset").addEventListener("click", () => store.set({ changes: [] }));
    this.find("link").addEventListener("click", () => this.#link());
    this.keys.addEventListener("keydown", (event) => {
      if (!(event.ctrlKey || event.metaKey) || takesText(event.target)) return;
      const key = event.key.toLowerCase(), redo = key === "y" || (key === "z" && event.shiftKey);
      if (!redo && key !== "z") return;
      event.preventDefault();
      if (redo) store.redo();
      else store.undo();
    });
  }

  show({ changes }) {
    this.find("undo").disabled = !this.store.past.length;
    this.find("redo").disabled = !this.store.future.length;
    this.find("reset").disabled = !changes.length;
    this.find("address").hidden = this.find("link-said").hidden = true;
    const items = changes.map((change) => {
      const text = this.#told(change), remove = () => this.store.change(null, (each) => each === change);
      return element("li", {}, text, button("Remove", remove, { "aria-label": `Remove: ${text}` }));
    });
    const none = "None: circuit and model are as they are. Choose a node above to change it.";
    const list = this.find("changes"), buttons = () => [...list.querySelectorAll("button")], at = buttons().indexOf(this.active());
    list.replaceChildren(...(items.length ? items : [element("li", { class: "faint" }, none)]));
    if (at >= 0) (buttons()[at] ?? buttons().at(-1) ?? list).focus();
  }

  #told(change) {
    const name = (node) => this.name(node);
    const when = change.at === null ? "at every token" : `at token ${change.at}`;
    const what = {
      off: () => `${name(change.node)} switched off`,
      set: () => `${name(change.node)} set to ${signed(change.value)}`,
      patch: () => `${name(change.node)} patched from the twin`,
      edge: () => `edge from ${name(change.from)} to ${name(change.to)} patched from the twin`,
      head: () => `attention of layer ${change.layer}, head ${change.head} patched from the twin`,
    }[change.kind]();
    return `${what} ${when}, ${WHERE[change.where]}`;
  }

  #link() {
    history.replaceState(null, "", `#${stateToHash(this.data.record.task, this.store.state)}`); // no hashchange, which takes links
    const address = this.find("address");
    address.value = location.href;
    address.hidden = this.find("link-said").hidden = false;
    address.select();
  }
}
