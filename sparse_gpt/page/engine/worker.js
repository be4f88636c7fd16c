// Runs a session beside the page, so that typing never waits for a pass.
//
// Messages in: { open: { record, packed } } once, then { number, state }, { number, state, without: node } or
// { number, state, effects: nodes } or { number, state, samples }. Out: { started } when it listens, { ready } or { failed } once, then for
// every state { number, view }, or { number, without }, { number, effects } and { number, samples } with logit differences, or
// { number, problem } where it cannot be run.

import { InputProblem, Session } from "./session.js";

let session = null;

self.addEventListener("message", ({ data }) => {
  if (data.open) {
    try {
      session = Session.open(data.open.record, data.open.packed);
      self.postMessage({ ready: session.model.config });
    } catch (error) {
      self.postMessage({ failed: String(error.message ?? error) });
    }
    return;
  }
  try {
    const { number, state, without, effects, samples } = data;
    if (without) self.postMessage({ number, without: session.withoutNode(state, without) });
    else if (samples) self.postMessage({ number, samples: samples.map((sample) => session.decide({ ...state, ...sample })) });
    else if (effects) self.postMessage({ number, effects: effects.map((node) => session.withoutNode(state, node, false)) });
    else self.postMessage({ number, view: session.look(state) });
  } catch (error) {
    if (!(error instanceof InputProblem)) throw error;
    self.postMessage({ number: data.number, problem: error.message });
  }
});

self.postMessage({ started: true });
