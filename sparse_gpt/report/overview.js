"use strict";

// The table of circuits, sorted by any column: numbers from the largest, names from A.
const rowsOf = () => [...document.querySelectorAll("#circuits tbody tr")];

for (const [column, button] of document.querySelectorAll("#circuits .sort").entries()) {
  button.addEventListener("click", () => {
    const head = button.parentElement, was = head.getAttribute("aria-sort");
    const up = was === "none" ? column === 0 : was === "descending";
    for (const other of document.querySelectorAll("#circuits [aria-sort]")) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.children[column].dataset.value;
    const order = (a, b) => (column === 0 ? key(a).localeCompare(key(b)) : Number(key(a)) - Number(key(b)));
    const known = rowsOf().filter((row) => key(row) !== ""), unknown = rowsOf().filter((row) => key(row) === "");
    known.sort((a, b) => (up ? order(a, b) : order(b, a)));
    document.querySelector("#circuits tbody").append(...known, ...unknown);
  });
}

// Two circuits: what both have, and what only one has.
const circuits = JSON.parse(document.getElementById("data").textContent);
const first = document.getElementById("first"), second = document.getElementById("second");

function made(tag, text, ...children) {
  const element = document.createElement(tag);
  element.textContent = text;
  element.append(...children);
  return element;
}

function compared(field, a, b) {
  const inA = new Set(a[field]), inB = new Set(b[field]);
  const both = a[field].filter((each) => inB.has(each));
  return { both, onlyA: a[field].filter((each) => !inB.has(each)), onlyB: b[field].filter((each) => !inA.has(each)) };
}

function list(title, entries, names) {
  const shown = entries.map((each) => (names[each] ? `“${names[each]}” (${each})` : each));
  return made("details", "", made("summary", `${title}: ${entries.length}`), made("p", shown.join(", ") || "none"));
}

function compare() {
  const a = circuits[first.selectedIndex], b = circuits[second.selectedIndex], parts = [];
  for (const field of ["nodes", "edges"]) {
    const { both, onlyA, onlyB } = compared(field, a, b), all = both.length + onlyA.length + onlyB.length;
    const share = all ? `${((100 * both.length) / all).toFixed(0)}% of all ${all}` : "there are none";
    const count = both.length === 1 ? `1 ${field.slice(0, -1)} is` : `${both.length} ${field} are`;
    parts.push(made("p", `${count} in both (${share}).`));
    const names = { ...b.labels, ...a.labels };
    parts.push(list(`${field} in both`, both, names));
    parts.push(list(`${field} of ${a.name} only`, onlyA, names), list(`${field} of ${b.name} only`, onlyB, names));
  }
  document.getElementById("comparison").replaceChildren(...parts);
}

if (first) {
  second.selectedIndex = 1;
  for (const select of [first, second]) select.addEventListener("change", compare);
  for (const field of document.querySelectorAll("[data-pair]")) {
    field.addEventListener("click", () => {
      [first.selectedIndex, second.selectedIndex] = field.dataset.pair.split(" ").map(Number);
      compare();
      document.getElementById("compare").scrollIntoView();
      first.focus();
    });
  }
  compare();
}
