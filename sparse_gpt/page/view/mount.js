// A circuit's page in any element: puts its parts together. main.js calls mount, in page.html, which a notebook shows in a frame.

import { bytesOfText, gunzip, headerOf } from "../engine/tensors.js";
import { Tokenizer } from "../engine/tokenizer.js";
import { ChangesView } from "./changes.js";
import { inOrder, nodeKey, nodeName } from "./dom.js";
import { DrawingView } from "./drawing.js";
import { Engine } from "./engine.js";
import { FormationView } from "./formation.js";
import { HeadsView } from "./heads.js";
import { Host } from "./host.js";
import { KeptNames } from "./kept.js";
import { hasNames, NamesView, noNames, ofFile } from "./names.js";
import { NodeView } from "./node.js";
import { showPredictions } from "./predictions.js";
import { PromptView } from "./prompt.js";
import { RankingView } from "./ranking.js";
import { SamplesView } from "./samples.js";
import { Store, stateOfHash, stateToHash } from "./store.js";
import { TwinView } from "./twin.js";
import { WaysOut } from "./ways_out.js";

const EMPTY = { prompt: "", twin: "", answer: null, foil: null, changes: [], position: null, node: null, names: noNames() };

// root: an element with the content of body.html; text: what the page carries (page.py: whole_page).
// Resolves to { store, engine, data } once the model is sent to its worker; rejects where the text is damaged.
export async function mount(root, text) {
  const packed = await gunzip(bytesOfText(text)), { page: carried, engine: source, ...model } = headerOf(packed);
  const { data, problem } = carried.circuits ? chosen(root, carried.circuits) : { data: carried };
  const find = (id) => root.querySelector(`#${id}`), main = root.querySelector("main");
  const keys = root === document.body ? document : root, active = () => root.getRootNode().activeElement;
  let linkProblem = problem || ""; // said once

  const known = knownOf(data), store = new Store(EMPTY, ask);
  const bare = (node) => nodeName(node, data.site_names);
  const name = (node) => {
    const given = store.state.names.labels[nodeKey(node)];
    return given ? `“${given}” (${bare(node)})` : bare(node);
  };
  data.keys = known.nodes;
  const engine = new Engine(source, { ready, failed: (reason) => failed(root, reason), shown });
  const tokenizer = new Tokenizer(model.vocabulary, model.special), ordered = inOrder(data.keys, data.site_names);
  const kept = new KeptNames(data), vocabulary = model.config.vocab_size;
  const page = { data, store, find, keys, active, bare, name, engine, tokenizer, vocabulary, ordered, kept };
  const prompts = new PromptView(page), twins = new TwinView(page), samples = new SamplesView(page, prompts);
  const drawing = new DrawingView(page);
  const heads = new HeadsView(page);
  const panel = new NodeView(page), ranking = (page.ranking = new RankingView(page));
  const changes = new ChangesView(page);
  const names = new NamesView(page), out = new WaysOut(page);
  const host = data.hosted ? new Host(page, known, (problem) => say(root, problem, true)) : null;
  new FormationView(page);
  keys.addEventListener("focusout", () => store.endBurst()); // a field that is taken up again makes a step of its own
  find("to-help").addEventListener("click", () => {
    find("help").open = true;
    find("help").scrollIntoView();
  });
  for (const link of root.querySelectorAll("[data-task]")) link.addEventListener("click", () => takePrompt(link, data.record.task, store.state));
  engine.open(data.record, packed);
  return { store, engine, data };

  function ready() {
    const given = data.labels ? ofFile(data.labels, data.record, data.keys).names : noNames();
    let start = { ...prompts.first(), names: kept.names ?? given };
    try {
      start = linked(start.names) ?? start;
    } catch (error) {
      linkProblem = error.message;
    }
    store.state = { ...store.state, ...start };
    host?.ready(vocabulary);
    names.begin(start.names, given);
    ask(store.state);
    window.addEventListener("hashchange", () => follow(given));
  }

  // The state that the address holds, with these names where it has none; null without one.
  function linked(own) {
    const found = stateOfHash(location.hash, { ...known, vocabulary, names: own });
    return found && { ...found, names: hasNames(found.names) ? found.names : own };
  }

  // Takes a link that is put into the address of the open page, as a step that can be undone.
  function follow(given) {
    try {
      const state = linked(store.state.names);
      if (!state) return;
      names.begin(state.names, given);
      store.set(state);
    } catch (error) {
      say(root, error.message, true);
    }
  }

  function ask(state) {
    main.setAttribute("aria-busy", "true");
    prompts.showTexts(state);
    changes.show(state);
    names.show(state);
    ranking.asked(state);
    samples.asked(state);
    host?.show(state);
    engine.ask(state);
  }

  function shown({ view, without, effects, samples: decisions, of, problem, state, stale }) {
    if (decisions) return samples.add(of, decisions);
    if (effects) return ranking.add(of, effects, state);
    if (without) return void (state.node === store.state.node && panel.showWithout(without));
    main.classList.toggle("stale", Boolean(problem));
    main.setAttribute("aria-busy", String(stale));
    if (problem) return void say(root, problem, true);
    const count = view.tokens.length, notice = linkProblem || view.notice;
    const computed = `${count} token${count > 1 ? "s" : ""}; computed in ${view.milliseconds.toFixed(0)} ms.`;
    say(root, notice || computed, Boolean(notice));
    linkProblem = "";
    drawing.show(view, state);
    prompts.show(view, state.node && drawing.values(view, state.node));
    twins.show(view, state, prompts);
    showPredictions(page, view, state, prompts.isSample(state));
    panel.show(view, state);
    ranking.show(view, state);
    samples.show(state);
    heads.show(view, state);
    out.show(view, state);
  }
}

// Of several circuits the one that the address asks for, as ?circuit=NAME, else the first; its body is put into `root`.
function chosen(root, circuits) {
  const asked = new URLSearchParams(location.search).get("circuit"), known = asked !== null && Object.hasOwn(circuits, asked);
  const name = known ? asked : Object.keys(circuits)[0], { body, ...data } = circuits[name];
  root.innerHTML = body;
  document.title = `${name} · ${document.title}`;
  const missing = asked !== null && !known;
  return { data, problem: missing && `This page has no circuit called ${asked.slice(0, 60)}; ${name} is shown.` };
}

// The way to another circuit of the same task takes the prompt along.
function takePrompt(link, task, { prompt, twin, answer, foil, position }) {
  const state = { prompt, twin, answer, foil, position, changes: [], node: null };
  link.hash = link.dataset.task === task ? stateToHash(task, state) : "";
}

export function failed(root, reason) {
  root.querySelector("main").setAttribute("aria-busy", "false");
  say(root, `The model in this page cannot be run: ${reason}. A current browser, and the file as it was made, are needed.`, true);
}

function say(root, text, isProblem) {
  const message = root.querySelector("#message");
  message.textContent = text;
  message.classList.toggle("problem", isProblem);
}

// What a link may name.
function knownOf({ record, d_head }) {
  const inHeads = record.nodes.filter(({ site }) => /^attn_[qkv]$/.test(site));
  return {
    task: record.task,
    nodes: new Set(record.nodes.map(({ layer, site, channel }) => nodeKey([layer, site, channel]))),
    edges: new Set(record.edges.map(({ from, to }) => `${nodeKey(from)}|${nodeKey(to)}`)),
    heads: new Set(inHeads.map(({ layer, channel }) => `${layer}.${Math.floor(channel / d_head)}`)),
  };
}
