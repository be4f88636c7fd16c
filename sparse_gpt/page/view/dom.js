// Small helpers to make elements, and how numbers are written.

export const SIDES = { circuit: "circuit", full: "full model" };

export function element(tag, options = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "class") made.className = value;
    else if (name === "on") for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    else if (name in made && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function button(text, click, options = {}) {
  return element("button", { type: "button", ...options, on: { click } }, text);
}

// A token between borders; further classes, and other attributes.
export function tokenSpan(text, classes = "", options = {}) {
  return element("span", { class: `token ${classes}`.trim(), ...options }, text);
}

export function table(caption, titles, rows, options = {}) {
  const head = element("tr", {}, ...titles.map((title) => element(title ? "th" : "td", title ? { scope: "col" } : {}, title)));
  return element("table", options, caption, element("thead", {}, head), element("tbody", {}, ...rows));
}

// A weight, an activation or a difference with its sign; a true minus.
export function signed(value) {
  if (value === null || !Number.isFinite(value)) return "–";
  const size = Math.abs(value), digits = size >= 9.995 ? 1 : size >= 0.0995 || value === 0 ? 2 : size >= 0.00095 ? 3 : -1;
  const text = digits < 0 ? value.toExponential(0) : value.toFixed(digits);
  return (value >= 0 ? "+" : "") + text.replace("-", "−").replace("e−", "e-").replace("e-", "e−");
}

// The same of what has no sign.
export function size(value) {
  return signed(Math.abs(value)).replace("+", "");
}

// Whole percents; tenths below ten, and above 99, where they tell the sure from the surer.
export function percent(share) {
  if (share > 0.9995 && share < 1) return ">99.9%";
  if (share >= 0.9895 && share < 1) return `${(100 * share).toFixed(1)}%`;
  return share >= 0.0995 ? `${(100 * share).toFixed(0)}%` : share >= 0.00095 ? `${(100 * share).toFixed(1)}%` : "<0.1%";
}

// Colors an element by a value: blue above zero, orange below, the stronger the nearer to `scale`.
export function tint(target, value, scale) {
  const share = scale > 0 && Number.isFinite(value) ? Math.min(1, Math.abs(value) / scale) : 0;
  target.classList.toggle("plus", share > 0.01 && value > 0);
  target.classList.toggle("minus", share > 0.01 && value < 0);
  target.style.setProperty("--share", `${Math.round(100 * share)}%`);
}

// Whether letters that are typed there become its text.
export function takesText({ tagName, type, readOnly }) {
  return tagName === "TEXTAREA" || (tagName === "INPUT" && !readOnly && !/^(range|radio|checkbox|file)$/.test(type));
}

// Gives an element other children. The focus, where it was on one with a data-key, goes to the one that has this key now.
export function replaceInside(target, active, ...children) {
  const key = target.contains(active) && active.dataset.key;
  target.replaceChildren(...children);
  if (key) target.querySelector(`[data-key="${key}"]`)?.focus();
}

export function largest(...lists) {
  let size = 0;
  for (const list of lists) for (const value of list ?? []) if (Math.abs(value) > size) size = Math.abs(value);
  return size;
}

export function nodeKey(node) {
  return node.join(".");
}

export function nodeOfKey(key) {
  const [layer, site, channel] = key.split(".");
  return [Number(layer), site, Number(channel)];
}

// Keys of nodes layer by layer, as they are computed.
export function inOrder(keys, siteNames) {
  const sites = Object.keys(siteNames), rank = ([layer, site, channel]) => [layer, sites.indexOf(site), channel];
  const ranked = [...keys].map((key) => [key, rank(nodeOfKey(key))]);
  const order = (a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2];
  return ranked.sort((a, b) => order(a[1], b[1])).map(([key]) => key);
}

// "layer 1: MLP neuron 33", as the drawing calls it.
export function nodeName([layer, site, channel], siteNames) {
  return `layer ${layer}: ${siteNames[site]} ${channel}`;
}
