// Puts the parts of the page together.

import { ChangesView } from "./changes.js";
import { byId, nodeKey } from "./dom.js";
import { DrawingView } from "./drawing.js";
import { Engine } from "./engine.js";
import { FormationView } from "./formation.js";
import { HeadsView } from "./heads.js";
import { Host } from "./host.js";
import { NodeView } from "./node.js";
import { showPredictions } from "./predictions.js";
import { PromptView } from "./prompt.js";
import { Store, stateOfHash } from "./store.js";

const data = JSON.parse(byId("data").textContent);
data.keys = new Set(data.record.nodes.map(({ layer, site, channel }) => nodeKey([layer, site, channel])));
const known = {
  task: data.record.task,
  nodes: data.keys,
  edges: new Set(data.record.edges.map(({ from, to }) => `${nodeKey(from)}|${nodeKey(to)}`)),
  heads: new Set(data.record.nodes.filter(({ site }) => /^attn_[qkv]$/.test(site)).map(headKey)),
};

let linkProblem = ""; // said once
const main = document.querySelector("main");
const store = new Store({ prompt: "", twin: "", answer: null, foil: null, changes: [], position: null, node: null }, ask);
const prompts = new PromptView(data.samples, store);
const drawing = new DrawingView(data, store);
const heads = new HeadsView(data, store);
const panel = new NodeView(data, store);
const changes = new ChangesView(data, store);
const host = data.hosted ? new Host(store, known, say) : null;
new FormationView(data);
const engine = new Engine(byId("engine").textContent, { ready, failed, shown });

engine.open(data.record, byId("weights").textContent);
byId("weights").remove(); // its text is not needed again

function headKey({ layer, channel }) {
  return `${layer}.${Math.floor(channel / data.d_head)}`;
}

function say(text, isProblem = false) {
  byId("message").textContent = text;
  byId("message").classList.toggle("problem", isProblem);
}

function ready(config) {
  let start = prompts.first();
  try {
    start = stateOfHash(location.hash, { ...known, vocabulary: config.vocab_size }) ?? start;
  } catch (error) {
    linkProblem = error.message;
  }
  store.state = { ...store.state, ...start };
  host?.ready(config.vocab_size);
  ask(store.state);
}

function failed(reason) {
  main.setAttribute("aria-busy", "false");
  say(`The model in this page cannot be run: ${reason}. A current browser, and the file as it was made, are needed.`, true);
}

function ask(state) {
  main.setAttribute("aria-busy", "true");
  prompts.showTexts(state);
  changes.show(state);
  host?.show(state);
  engine.ask(state);
}

function shown({ view, without, problem, state, stale }) {
  if (without) return void (state.node === store.state.node && panel.showWithout(without));
  main.classList.toggle("stale", Boolean(problem));
  main.setAttribute("aria-busy", String(stale));
  if (problem) return void say(problem, true);
  const count = view.tokens.length;
  const notice = linkProblem || view.notice;
  say(notice || `${count} token${count > 1 ? "s" : ""}; computed in ${view.milliseconds.toFixed(0)} ms.`, Boolean(notice));
  linkProblem = "";
  drawing.show(view, state);
  prompts.show(view, state.node && drawing.values(view, state.node));
  showPredictions(view, state);
  panel.show(view, state);
  heads.show(view, state);
}
