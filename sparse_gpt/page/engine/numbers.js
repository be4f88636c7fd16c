// Numbers of the forward pass: AbsTopK, the exact GELU, norms. Rows are stored one after the other in float32.

const RMS_EPS = 2 ** -23, LAYER_EPS = 1e-5;
const INFINITY_KEY = 0x7f800000, NAN_KEY = 0x7f810000; // a NaN counts as larger than infinity

// Keeps the k entries of largest magnitude of every row, ties to the lowest index; the others become 0.
export function absTopK(x, width, k) {
  if (k >= width) return;
  if (k === 0) return void x.fill(0);
  const bits = new Int32Array(x.buffer, x.byteOffset, x.length);
  const keys = new Int32Array(width), scratch = new Int32Array(width);
  for (let start = 0; start < x.length; start += width) {
    for (let i = 0; i < width; i++) {
      const key = bits[start + i] & 0x7fffffff;
      keys[i] = key > INFINITY_KEY ? NAN_KEY : key;
    }
    scratch.set(keys);
    const cut = kthLargest(scratch, k);
    let equal = k;
    for (let i = 0; i < width; i++) if (keys[i] > cut) equal--;
    for (let i = 0; i < width; i++) if (keys[i] < cut || (keys[i] === cut && equal-- <= 0)) x[start + i] = 0;
  }
}

// Quickselect; changes the order of `keys`.
function kthLargest(keys, k) {
  let low = 0, high = keys.length - 1;
  const wanted = k - 1;
  while (low < high) {
    const pivot = keys[(low + high) >> 1];
    let i = low, j = high;
    while (i <= j) {
      while (keys[i] > pivot) i++;
      while (keys[j] < pivot) j--;
      if (i <= j) {
        const held = keys[i];
        keys[i++] = keys[j];
        keys[j--] = held;
      }
    }
    if (wanted <= j) high = j;
    else if (wanted >= i) low = i;
    else break;
  }
  return keys[wanted];
}

// erf at multiples of 1/64 up to 6, by its series; between them Taylor's formula, to about 1e-11.
const GRID = 64, LAST = 6, SLOPE = 2 / Math.sqrt(Math.PI);
const ERF = Float64Array.from({ length: GRID * LAST + 1 }, (_, i) => erfSeries(i / GRID));
const SLOPES = ERF.map((_, i) => SLOPE * Math.exp(-((i / GRID) ** 2)));

function erfSeries(x) {
  let term = x, sum = x; // exp(-x^2) times terms that are all positive
  for (let n = 1; Math.abs(term) > 1e-17 * sum; n++) sum += term *= (2 * x * x) / (2 * n + 1);
  return SLOPE * Math.exp(-x * x) * sum;
}

export function erf(x) {
  const size = Math.abs(x);
  if (!(size < LAST)) return Number.isNaN(x) ? NaN : Math.sign(x);
  const nearest = Math.round(size * GRID), a = nearest / GRID, d = size - a;
  const third = (2 * a * a - 1) / 3 - (d * a * (2 * a * a - 3)) / 6;
  const found = ERF[nearest] + SLOPES[nearest] * d * (1 - d * (a - d * third));
  return x < 0 ? -found : found;
}

export function activate(x, kind) {
  if (kind === "relu") return relu(x);
  if (kind !== "gelu") throw new Error(`activation ${kind}: not one that this page has`);
  for (let i = 0; i < x.length; i++) if (x[i] !== 0) x[i] = x[i] * (0.5 + 0.5 * erf(x[i] * Math.SQRT1_2));
}

export function relu(x) {
  for (let i = 0; i < x.length; i++) if (x[i] < 0) x[i] = 0;
}

// RMSNorm or LayerNorm of rows of `width` with a scale and, where it is not null, a bias.
// `frozen`: reciprocal norms to use instead of x's own. Returns { read, inverse }; rows of `read` are `stride` apart.
export function normalize(x, width, kind, { scale, bias }, frozen = null, stride = width) {
  const rows = x.length / width, read = new Float32Array(rows * stride), inverse = new Float32Array(rows);
  for (let t = 0; t < rows; t++) {
    let mean = 0, square = 0;
    if (kind !== "rms") for (let i = 0; i < width; i++) mean += x[t * width + i] / width;
    for (let i = 0; i < width; i++) square += (x[t * width + i] - mean) ** 2;
    inverse[t] = frozen ? frozen[t] : 1 / Math.sqrt(square / width + (kind === "rms" ? RMS_EPS : LAYER_EPS));
    for (let i = 0; i < width; i++) {
      read[t * stride + i] = (x[t * width + i] - mean) * inverse[t] * scale[i] + (bias ? bias[i] : 0);
    }
  }
  return { read, inverse };
}
