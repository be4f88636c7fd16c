// Runs a session beside the page, so that typing never waits for a pass.
//
// Messages in: { open: { record, packed } } once, then { number, state }, { number, state, without: node } or
// { number, state, effect: node }. Out: { started } when it listens, { ready } or { failed } once, then for every state
// { number, view }, or { number, without } and { number, effect } with logit differences, or { number, problem } where it cannot be run.

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
    const { number, state, without, effect } = data;
    if (without) self.postMessage({ number, without: session.withoutNode(state, without) });
    else if (effect) self.postMessage({ number, effect: session.withoutNode(state, effect, false) });
    else self.postMessage({ number, view: session.look(state) });
  } catch (error) {
    if (!(error instanceof InputProblem)) throw error;
    self.postMessage({ number: data.number, problem: error.message });
  }
});

self.postMessage({ started: true });
