// The page in a cell of a notebook: a frame that shows it, and messages that keep it and the Python object at one state.
//
// Messages have one field, sparse_gpt: from the page { ready: state } once, then { state }; to the page { state }. A field
// that is null in Python before the page is ready is taken from the page.

const SHARED = ["prompt", "twin", "node", "position", "changes"];

function render({ model, el }) {
  const frame = document.createElement("iframe");
  const shared = () => Object.fromEntries(SHARED.map((name) => [name, model.get(name)]));
  const send = () => frame.contentWindow?.postMessage({ sparse_gpt: { state: shared() } }, "*");
  const receive = ({ source, data }) => {
    if (source !== frame.contentWindow || !data?.sparse_gpt) return;
    const { ready, state } = data.sparse_gpt;
    for (const name of SHARED) if (state || model.get(name) === null) model.set(name, (state ?? ready)[name]);
    model.save_changes();
    if (ready) send();
  };
  frame.title = model.get("title");
  frame.setAttribute("sandbox", "allow-scripts allow-downloads");
  Object.assign(frame.style, { width: "100%", height: `${model.get("height")}px`, border: "0" });
  window.addEventListener("message", receive);
  for (const name of SHARED) model.on(`change:${name}`, send);
  frame.srcdoc = model.get("page");
  el.append(frame);
  return () => {
    window.removeEventListener("message", receive);
    for (const name of SHARED) model.off(`change:${name}`, send);
  };
}

export default { render };
