// Byte-level BPE as sparse_gpt/data/tokenizer.py does it, and how tokens are shown, as sparse_gpt/visible.py does it.

// \s of the pattern is Unicode's White_Space; JavaScript's own \s differs in two characters.
const WHITE = "\\p{White_Space}";
const PATTERN = new RegExp(
  `[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^${WHITE}\\p{L}\\p{N}]+[\\r\\n/]*` +
    `|${WHITE}*[\\r\\n]+|${WHITE}+(?!\\P{White_Space})|${WHITE}+`,
  "gu",
);
// Longer runs of white space (as Python knows it) are split into parts that are encoded apart.
const SPACE = "[\\t-\\r\\x1c- \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";
const LONG_WHITE = new RegExp(`${SPACE}{4096}(?=${SPACE})`, "gu");
const SIGNS = { "\n": "↵", "\r": "␍", "\t": "⇥", " ": "·" };
const SIGN_CHARACTERS = new Set([...Object.values(SIGNS), "∅"]);

export class Tokenizer {
  // vocabulary: for every id its bytes as a text of characters up to U+00FF; special: ids that text never gives.
  constructor(vocabulary, special) {
    this.vocabulary = vocabulary;
    this.special = new Set(special);
    this.ranks = new Map();
    this.longest = 1;
    vocabulary.forEach((bytes, id) => {
      if (this.special.has(id)) return;
      this.ranks.set(bytes, id);
      this.longest = Math.max(this.longest, bytes.length);
    });
  }

  // Half a surrogate pair is no UTF-8: each of its three bytes stands alone.
  encode(text) {
    return this.encodeBytes(utf8(text));
  }

  // Valid UTF-8 is encoded as text; each byte that is not stands alone, as its own token.
  encodeBytes(bytes) {
    const ids = [];
    for (const part of validParts(bytes)) {
      if (typeof part === "number") ids.push(this.ranks.get(String.fromCharCode(part)));
      else for (const short of shortRuns(part)) this.#encodeText(short, ids);
    }
    return ids;
  }

  #encodeText(text, ids) {
    for (const [word] of text.matchAll(PATTERN)) this.#encodeWord(latin(utf8(word)), ids);
  }

  #encodeWord(bytes, ids) {
    const whole = this.ranks.get(bytes);
    if (whole !== undefined) return void ids.push(whole);
    const parts = bytes.split("");
    while (parts.length > 1) {
      let best = Infinity, at = -1;
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = this.ranks.get(parts[i] + parts[i + 1]);
        if (rank < best) [best, at] = [rank, i];
      }
      if (at < 0) break;
      parts.splice(at, 2, parts[at] + parts[at + 1]);
    }
    for (const part of parts) ids.push(this.ranks.get(part));
  }

  // Text of ids; bytes that are no text become U+FFFD.
  decode(ids) {
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytesOfLatin(ids.map((id) => this.vocabulary[id]).join("")));
  }

  // What a person writes for a token: signs for white space are what they stand for.
  read(shown) {
    return Object.entries(SIGNS).reduce((text, [character, sign]) => text.replaceAll(sign, character), shown);
  }

  // As a person reads a token: white space as signs, what does not print and parts of characters by number.
  show(id) {
    if (id >= this.vocabulary.length) return `<id ${id}>`;
    let shown = "";
    for (const part of validParts(bytesOfLatin(this.vocabulary[id]))) {
      shown += typeof part === "number" ? `<${hex(part, 2)}>` : [...part].map(visibleCharacter).join("");
    }
    return shown || "∅";
  }
}

function* shortRuns(text) {
  let start = 0;
  for (const run of text.matchAll(LONG_WHITE)) {
    const end = run.index + run[0].length;
    yield text.slice(start, end);
    start = end;
  }
  yield text.slice(start);
}

function visibleCharacter(character) {
  if (SIGNS[character]) return SIGNS[character];
  if (!/[\p{C}\p{Z}]/u.test(character) && !SIGN_CHARACTERS.has(character)) return character;
  const number = character.codePointAt(0);
  return number < 0x80 ? `<${hex(number, 2)}>` : `<U+${hex(number, 4)}>`;
}

function hex(number, digits) {
  return number.toString(16).toUpperCase().padStart(digits, "0");
}

// UTF-8 in which half surrogate pairs take three bytes, as Python's "surrogatepass" writes them.
function utf8(text) {
  const encoder = new TextEncoder();
  if (!/\p{Cs}/u.test(text)) return encoder.encode(text);
  const bytes = [];
  for (const character of text) {
    const code = character.codePointAt(0);
    if (code >= 0xd800 && code < 0xe000) bytes.push(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
    else bytes.push(...encoder.encode(character));
  }
  return Uint8Array.from(bytes);
}

// Texts of valid UTF-8, and between them single bytes that are not, as numbers.
function* validParts(bytes) {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let start = 0;
  for (let i = 0; i < bytes.length; ) {
    const length = characterLength(bytes, i);
    if (length) {
      i += length;
      continue;
    }
    if (i > start) yield decoder.decode(bytes.subarray(start, i));
    yield bytes[i];
    start = ++i;
  }
  if (start < bytes.length) yield decoder.decode(bytes.subarray(start));
}

// Bytes of the character that begins at i; 0 if none does.
function characterLength(bytes, i) {
  const first = bytes[i];
  if (first < 0x80) return 1;
  const length = first < 0xc2 || first >= 0xf5 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  if (!length || i + length > bytes.length) return 0;
  for (let j = i + 1; j < i + length; j++) if ((bytes[j] & 0xc0) !== 0x80) return 0;
  const second = bytes[i + 1]; // overlong forms, surrogates, and beyond U+10FFFF
  if ((first === 0xe0 && second < 0xa0) || (first === 0xed && second >= 0xa0)) return 0;
  if ((first === 0xf0 && second < 0x90) || (first === 0xf4 && second >= 0x90)) return 0;
  return length;
}

function latin(bytes) {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

function bytesOfLatin(text) {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}
