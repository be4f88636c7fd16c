// Names that people give: to the chosen node, to its group, and a reading of the circuit; as labels.json, both ways.
//
// In the state they are { labels: node key -> name, groups: node key -> name of its group, reading }.

import { button, element, nodeKey, nodeOfKey } from "./dom.js";
import { save } from "./download.js";

export const FORMAT = "sparse_gpt.labels/1";
const LONGEST = 200; // characters of a name, as the record has it

export class NamesView {
  constructor(page) {
    Object.assign(this, page);
    const { store, find } = page;
    find("label").addEventListener("input", ({ target }) => this.#name("labels", target.value));
    find("group").addEventListener("input", ({ target }) => this.#name("groups", target.value));
    find("reading").addEventListener("input", ({ target }) => {
      store.set({ names: { ...store.state.names, reading: target.value } }, "reading");
    });
    find("save-names").addEventListener("click", () => {
      const text = JSON.stringify(asFile(store.state.names, this.data.record), null, 1);
      save("labels.json", new Blob([`${text}\n`], { type: "application/json" }));
    });
    find("load-names").addEventListener("change", ({ target }) => this.#load(target));
  }

  #name(field, text) {
    const { names, node } = this.store.state;
    if (!node) return;
    const named = { ...names[field] };
    if (text.trim()) named[node] = text.slice(0, LONGEST);
    else delete named[node];
    this.store.set({ names: { ...names, [field]: named } }, `${field} ${node}`);
  }

  async #load(input) {
    const [file] = input.files;
    input.value = "";
    if (!file) return;
    try {
      const { names, said } = ofFile(JSON.parse(await file.text()), this.data.record, this.data.keys);
      this.store.set({ names });
      this.#say(said || `${file.name} is loaded.`);
    } catch (error) {
      this.#say(error instanceof SyntaxError ? `${file.name} is no JSON; it was left aside.` : error.message);
    }
  }

  // What the names are at first; from then on those that a person gives are kept. Those of a link never take the place of
  // others that this browser has: a person chooses.
  begin(names, given) {
    this.last = names;
    this.#offer(false);
    const { names: mine, others } = this.kept, same = (some) => JSON.stringify(some) === JSON.stringify(names);
    const unknown = [others.labels, others.groups].reduce((total, named) => total + Object.keys(named).length, 0);
    const said = [mine && same(mine) && "As they were left in this browser."];
    said.push(unknown && `This browser keeps names of nodes that this circuit does not have, too: ${unknown}.`);
    this.#say(said.filter(Boolean).join(" "));
    if (!mine) return void (same(given) || this.kept.write(names));
    if (same(mine)) return;
    const choose = (text, chosen) => button(text, () => this.#choose(chosen));
    this.#offer(true);
    const there = () => this.find("names-title").scrollIntoView();
    this.find("names-notice").replaceChildren("This link names nodes, and this browser has other names of yours. ", button("Choose", there));
    this.find("names-choice").replaceChildren(
      "The names are those of the link. This browser has others, of yours, and keeps them until you choose: ",
      choose("Use mine", mine), " ", choose("Add the link’s to mine", joined(names, mine)), " ", choose("Use the link’s", names),
    );
  }

  #offer(isOpen) {
    this.find("names-choice").hidden = this.find("names-notice").hidden = !isOpen;
  }

  #choose(names) {
    this.#offer(false);
    this.last = null; // whichever it is, it is kept
    this.store.set({ names });
  }

  #keep(names) {
    if (names === this.last || !this.find("names-choice").hidden) return;
    this.last = names;
    this.kept.write(names);
    if (!this.kept.works) this.#say("This browser keeps no names of this page: save them, or link to them, before you leave.");
  }

  #say(text) {
    this.find("names-said").textContent = text;
  }

  show({ names, node }) {
    this.#keep(names);
    this.find("names-of").textContent = node ? this.bare(nodeOfKey(node)) : "Choose a node to give it a name.";
    for (const [id, field] of Object.entries({ label: "labels", group: "groups" })) {
      const input = this.find(id), text = (node && names[field][node]) || "";
      input.disabled = !node;
      if (input.value !== text) input.value = text;
    }
    if (this.find("reading").value !== names.reading) this.find("reading").value = names.reading;
    const groups = membersOf(names.groups);
    this.find("known-groups").replaceChildren(...[...groups.keys()].map((name) => element("option", { value: name })));
    const members = (keys) => keys.map((key) => this.name(nodeOfKey(key))).join(", ");
    const listed = [...groups].map(([name, keys]) => element("li", {}, element("b", {}, name), `: ${members(keys)}`));
    this.find("groups").replaceChildren(...listed);
  }
}

export function noNames() {
  return { labels: {}, groups: {}, reading: "" };
}

export function hasNames({ labels, groups, reading }) {
  return Boolean(Object.keys(labels).length || Object.keys(groups).length || reading);
}

// Names of both; where a node has two, `mine`.
function joined(others, mine) {
  const both = (field) => ({ ...others[field], ...mine[field] });
  return { labels: both("labels"), groups: both("groups"), reading: mine.reading || others.reading };
}

function membersOf(groups) {
  const found = new Map();
  for (const [key, name] of Object.entries(groups)) found.set(name, [...(found.get(name) ?? []), key]);
  return found;
}

function asFile({ labels, groups, reading }, { task, params_sha256 }) {
  const nodes = Object.entries(labels).map(([key, label]) => {
    const [layer, site, channel] = nodeOfKey(key);
    return { layer, site, channel, label };
  });
  const listed = [...membersOf(groups)].map(([name, keys]) => ({ name, nodes: keys.map(nodeOfKey) }));
  return { format: FORMAT, task, params_sha256, nodes, groups: listed, reading };
}

// Names of a labels.json, and what is to be said of it. Throws an error with a line where it does not fit at all.
export function ofFile(tree, record, keys) {
  if (tree?.format !== FORMAT) throw new Error(`The file is no labels.json (its format is to be ${FORMAT}); it was left aside.`);
  if (tree.task !== record.task || tree.params_sha256 !== record.params_sha256) {
    const other = `${String(tree.task).slice(0, 60)}, weights ${String(tree.params_sha256).slice(0, 12)}`;
    throw new Error(`The names belong to another circuit (${other}); they were left aside.`);
  }
  const names = { ...noNames(), reading: typeof tree.reading === "string" ? tree.reading : "" };
  let lost = 0;
  const give = (field, key, name) => {
    if (keys.has(key) && isName(name)) names[field][key] = name;
    else lost++;
  };
  for (const { layer, site, channel, label } of listOf(tree.nodes)) give("labels", nodeKey([layer, site, channel]), label);
  for (const { name, nodes } of listOf(tree.groups)) {
    for (const node of listOf(nodes)) give("groups", Array.isArray(node) ? nodeKey(node) : "", name);
  }
  return { names, said: lost ? `${lost} names are of nodes that this circuit does not have; they were left out.` : "" };
}

function listOf(value) {
  return Array.isArray(value) ? value.filter((each) => each !== null && typeof each === "object") : [];
}

function isName(text) {
  return typeof text === "string" && text.length > 0 && text.length <= LONGEST;
}

// Names that a browser has kept: of nodes in `keys`, and of others. What is no name is left out.
export function namesByKeys(names, keys) {
  const part = (field, isMine) => {
    const named = Object.entries(names?.[field] ?? {}).filter(([key, name]) => isName(name) && keys.has(key) === isMine);
    return Object.fromEntries(named);
  };
  const reading = typeof names?.reading === "string" ? names.reading : "";
  const mine = { labels: part("labels", true), groups: part("groups", true), reading };
  return { mine, others: { labels: part("labels", false), groups: part("groups", false) } };
}

// Whether names of a link are as they should be.
export function areNames(names, keys) {
  if (names === null || typeof names !== "object" || typeof names.reading !== "string") return false;
  return [names.labels, names.groups].every(
    (named) => named && typeof named === "object" && Object.entries(named).every(([key, name]) => keys.has(key) && isName(name)),
  );
}
