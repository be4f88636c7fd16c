// What the page carries of a model: text in the page, gzip in that, then named arrays as weights.py packs them.

// Seven bits of every character, see as_text in weights.py.
export function bytesOfText(text) {
  const bytes = new Uint8Array(Math.floor((7 * text.length) / 8));
  let held = 0, count = 0, at = 0;
  for (let i = 0; i < text.length; i++) {
    held = ((held << 7) | (text.charCodeAt(i) & 127)) & 0x7fff;
    count += 7;
    if (count >= 8 && at < bytes.length) bytes[at++] = held >> (count -= 8);
  }
  return bytes;
}

export async function gunzip(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function headerLength(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
}

export function headerOf(bytes) {
  return JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + headerLength(bytes))));
}

// A tensor keeps one bit per entry that says whether it is there, and the values of those: { shape, bits, values }.
export class Tensors {
  constructor(bytes) {
    this.header = headerOf(bytes);
    this.found = new Map();
    let at = 4 + headerLength(bytes);
    for (const { name, shape, count } of this.header.tensors) {
      const size = shape.reduce((product, n) => product * n, 1);
      const bits = bytes.subarray(at, (at += Math.ceil(size / 8)));
      const values = joinPlanes(bytes.subarray(at, (at += 4 * count)), count);
      this.found.set(name, { shape, bits, values });
    }
    if (at !== bytes.length) throw new Error(`the model has ${bytes.length} bytes, expected ${at}`);
  }

  has(name) {
    return this.found.has(name);
  }

  tensor(name) {
    const tensor = this.found.get(name);
    if (!tensor) throw new Error(`the model has no ${name}`);
    return tensor;
  }

  dense(name) {
    const { shape, bits, values } = this.tensor(name);
    const size = shape.reduce((product, n) => product * n, 1);
    if (values.length === size) return values;
    const result = new Float32Array(size);
    for (let i = 0, next = 0; i < size; i++) if (isSet(bits, i)) result[i] = values[next++];
    return result;
  }

  matrix(name) {
    const { shape: [rows, columns], bits, values } = this.tensor(name);
    const starts = new Uint32Array(rows + 1), index = new Uint32Array(values.length);
    for (let i = 0, next = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) if (isSet(bits, i * columns + j)) index[next++] = j;
      starts[i + 1] = next;
    }
    return new Matrix(rows, columns, starts, index, values);
  }
}

function isSet(bits, i) {
  return (bits[i >> 3] >> (7 - (i & 7))) & 1;
}

// Values lie as planes of bytes, the first (lowest) bytes of all values first.
function joinPlanes(planes, count) {
  const words = new Uint32Array(count);
  for (let plane = 0; plane < 4; plane++) {
    for (let i = 0; i < count; i++) words[i] |= planes[plane * count + i] << (8 * plane);
  }
  return new Float32Array(words.buffer);
}

// A matrix by rows (inputs): entries starts[i] to starts[i + 1] lead from input i to outputs index[...].
export class Matrix {
  constructor(rows, columns, starts, index, values) {
    Object.assign(this, { rows, columns, starts, index, values });
  }

  // Place of the entry (row, column) among the values, or -1 where it is zero.
  place(row, column) {
    for (let p = this.starts[row]; p < this.starts[row + 1]; p++) if (this.index[p] === column) return p;
    return -1;
  }

  at(row, column) {
    const place = this.place(row, column);
    return place < 0 ? 0 : this.values[place];
  }

  withValues(values) {
    return new Matrix(this.rows, this.columns, this.starts, this.index, values);
  }

  transposed() {
    const starts = new Uint32Array(this.columns + 1);
    for (const j of this.index) starts[j + 1]++;
    for (let j = 0; j < this.columns; j++) starts[j + 1] += starts[j];
    const next = starts.slice(), index = new Uint32Array(this.index.length), values = new Float32Array(index.length);
    for (let i = 0; i < this.rows; i++) {
      for (let p = this.starts[i]; p < this.starts[i + 1]; p++) {
        const q = next[this.index[p]]++;
        index[q] = i;
        values[q] = this.values[p];
      }
    }
    return new Matrix(this.columns, this.rows, starts, index, values);
  }
}
