// What a person has chosen, with its history, and as text for a link.
//
// state: prompt, twin (texts); answer, foil (token ids or null); changes; position (token, or null for the last);
// node (key or null); names, see names.js. A change is { kind, where, at, ... }: kind "off", "set" (with value) or "patch" of a node, "edge"
// (from, to) or "head" (layer, head); where "circuit", "full" or "both"; at a position, or null for every one.

import { areNames } from "./names.js";

const KINDS = ["off", "set", "patch", "edge", "head"], PLACES = ["circuit", "full", "both"];
const UNDONE = ["prompt", "twin", "answer", "foil", "changes", "names"]; // what undo takes back
const MOST = 200; // states that are kept

export class Store {
  constructor(state, changed) {
    Object.assign(this, { state, changed, past: [], future: [], burst: null });
  }

  // Sets fields. Fields that undo takes back make a step of the history; steps of one `burst` (a word that is typed, a
  // slider that is drawn) make one together.
  set(fields, burst = null) {
    if (UNDONE.some((name) => name in fields)) {
      if (burst === null || burst !== this.burst) this.past = [...this.past, this.#undone()].slice(-MOST);
      this.future = [];
      this.burst = burst;
    }
    this.state = { ...this.state, ...fields };
    this.changed(this.state);
  }

  // What comes next makes a step of its own.
  endBurst() {
    this.burst = null;
  }

  undo() {
    this.#move(this.past, this.future);
  }

  redo() {
    this.#move(this.future, this.past);
  }

  // Puts a change in the place of those that it replaces, and takes away those only with null.
  change(change, replaces, burst = null) {
    const others = this.state.changes.filter((each) => !replaces(each));
    this.set({ changes: change ? [...others, change] : others }, burst);
  }

  #undone() {
    return Object.fromEntries(UNDONE.map((name) => [name, this.state[name]]));
  }

  #move(from, to) {
    if (!from.length) return;
    to.push(this.#undone());
    this.burst = null;
    this.state = { ...this.state, ...from.pop() };
    this.changed(this.state);
  }
}

// The state as the part of an address after #.
export function stateToHash(task, state) {
  const bytes = new TextEncoder().encode(JSON.stringify({ task, ...state }));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

// The state of a link; null if there is none in it. Throws an error that says what is wrong with one that is not of this
// page. `known`: the circuit's task, its nodes, edges and heads as sets of keys, the number of
// ids, and names where the link has none.
export function stateOfHash(hash, known) {
  if (hash.length < 2) return null;
  const found = parsed(hash.slice(1));
  if (found?.task !== known.task) {
    throw new Error(`The link belongs to another circuit (${String(found?.task).slice(0, 60)}); it was left aside.`);
  }
  const state = { names: known.names, ...found }; // older links name nothing
  if (!fits(state, known)) throw new Error("The link does not fit this circuit; it was left aside.");
  const { prompt, twin, answer, foil, changes, position, node, names } = state;
  return { prompt, twin, answer, foil, changes, position, node, names };
}

// Whether a state from outside is one of this page.
export function fits({ prompt, twin, answer, foil, changes, position, node, names }, known) {
  const isId = (id) => Number.isInteger(id) && id >= 0 && id < known.vocabulary;
  return (
    typeof prompt === "string" && typeof twin === "string" &&
    ((answer === null && foil === null) || (isId(answer) && isId(foil))) &&
    isPlace(position) && (node === null || known.nodes.has(node)) &&
    areNames(names, known.nodes) &&
    Array.isArray(changes) && changes.every((change) => isChange(change, known))
  );
}

function parsed(text) {
  try {
    const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    const bytes = Uint8Array.from(binary, (character) => character.charCodeAt(0));
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new Error("The link is damaged: what follows # in the address is no state of this page.");
  }
}

function isPlace(at) {
  return at === null || (Number.isInteger(at) && at >= 0);
}

function isChange(change, { nodes, edges, heads }) {
  if (!KINDS.includes(change?.kind) || !PLACES.includes(change.where) || !isPlace(change.at)) return false;
  const key = (node) => (Array.isArray(node) ? node.join(".") : "");
  if (change.kind === "head") return heads.has(`${change.layer}.${change.head}`);
  if (change.kind === "edge") return edges.has(`${key(change.from)}|${key(change.to)}`);
  return nodes.has(key(change.node)) && (change.kind !== "set" || Number.isFinite(change.value));
}
