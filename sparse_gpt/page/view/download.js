// What the page gives away as files.

export function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// The drawing as it stands, as text of an SVG file of its own: colors that the page gives are written into it, what is
// hidden is left out.
export function drawingText(svg) {
  const copy = svg.cloneNode(true), originals = svg.querySelectorAll("*");
  const parts = [...copy.querySelectorAll("*")];
  parts.forEach((part, i) => {
    const { fill, stroke, opacity, display } = getComputedStyle(originals[i]), drawn = part instanceof SVGGraphicsElement;
    if (display === "none" && part.tagName !== "style" && part.tagName !== "title") return void part.remove();
    if (part.hasAttribute("style")) Object.assign(part.style, { fill, stroke, opacity }); // not as text: the policy forbids it
    else if (drawn && opacity !== "1") part.style.opacity = opacity; // classes of the page, such as embedding edges of other tokens
    for (const name of ["tabindex", "role", "aria-label", "aria-pressed"]) part.removeAttribute(name);
    part.classList.remove("chosen", "changed", "terminal-active");
  });
  copy.removeAttribute("style");
  return new XMLSerializer().serializeToString(copy);
}

// The same as a PNG file, twice as many pixels as the drawing has.
export async function drawingImage(svg) {
  const { width, height } = svg.viewBox.baseVal, image = new Image();
  image.src = URL.createObjectURL(new Blob([drawingText(svg)], { type: "image/svg+xml" }));
  await image.decode();
  const canvas = document.createElement("canvas");
  const times = Math.min(2, 16_000 / Math.max(width, height)); // what canvases can hold
  [canvas.width, canvas.height] = [Math.round(times * width), Math.round(times * height)];
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(image.src);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

// Rows as CSV, fields in quotes where they need them.
export function csv(rows) {
  const field = (value) => (/[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  return rows.map((row) => `${row.map((value) => field(String(value ?? ""))).join(",")}\n`).join("");
}
