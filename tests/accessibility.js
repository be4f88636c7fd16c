// What is wrong with a page for those who do not see it, or not well: two functions that return lists of texts.

function withoutName() {
  const wrong = [], start = (e) => e.outerHTML.slice(0, 90);
  const name = (e) => (e.getAttribute("aria-label") || e.textContent || e.title || "").trim();
  const parts = "button, [role=button], [role=option], [role=listbox], [role=group], [role=img], summary, canvas";
  for (const e of document.querySelectorAll(parts)) {
    const by = e.getAttribute("aria-labelledby");
    if (!name(e) && !(by && document.getElementById(by))) wrong.push(start(e));
  }
  for (const e of document.querySelectorAll("input, select, textarea")) {
    if (!e.labels?.length && !name(e)) wrong.push(start(e));
  }
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  wrong.push(...ids.filter((id, i) => ids.indexOf(id) !== i).map((id) => `two of ${id}`));
  for (const e of document.querySelectorAll("[tabindex='0'], button, select, textarea, input")) {
    if (e.closest("[aria-hidden=true]")) wrong.push(start(e));
  }
  return wrong;
}

// Text with less than 4.5 to 1 against what lies behind it, by the formula of WCAG 2.
function tooFaint() {
  const numbers = (color) => color.match(/[\d.]+/g).map(Number);
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const color = numbers(getComputedStyle(e).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const wrong = [], parts = "p, th, td, h1, h2, h3, label, legend, button:enabled, caption, figcaption, summary, li, .mark";
  for (const e of document.querySelectorAll(parts)) {
    if (!e.textContent.trim() || !e.offsetParent) continue;
    const [a, b] = [light(numbers(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) wrong.push(`${e.tagName} ${e.className} ${e.textContent.slice(0, 40)}`);
  }
  return wrong;
}
