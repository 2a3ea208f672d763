// The words of a text and of its translation, and the attention of each target word to each source word.

/** Returns a text as nodes, with a span per word. Positions count characters, unlike JavaScript's own indices. */
export function makeSpans(text, words) {
  const characters = Array.from(text);
  const nodes = [];
  let position = 0;
  for (const { start, end } of words) {
    nodes.push(characters.slice(position, start).join(""));
    const span = document.createElement("span");
    span.className = "word";
    span.textContent = characters.slice(start, end).join("");
    nodes.push(span);
    position = end;
  }
  nodes.push(characters.slice(position).join(""));
  return nodes;
}

export const DOUBTFUL = 0.5; // confidence below which a sentence is marked

/** Returns whether a word is in a part of a translation that is expected to differ much from a human one. */
export function isDoubtful({ confidence, part_confidences: parts }, { start }) {
  const part = parts ? parts.find((one) => one.start <= start && start < one.end) : { confidence };
  return part?.confidence < DOUBTFUL; // false without confidence
}

/** Returns the source words that a target word attended to, as [index, weight], largest weight first. */
export function sourceWeights({ target }, index) {
  const { first, weights } = target[index];
  return sortByWeight(weights.map((weight, n) => [first + n, weight]));
}

/** Returns the target words that attended to a source word, in the same form. */
export function targetWeights({ target }, index) {
  return sortByWeight(target.map(({ first, weights }, n) => [n, weights[index - first] ?? 0]));
}

function sortByWeight(pairs) {
  return pairs.filter(([, weight]) => weight > 0).sort((a, b) => b[1] - a[1]);
}

/** Returns the index of the word at a position, or -1. */
export function findWord(words, position) {
  return words.findIndex(({ start, end }) => start <= position && position < end);
}

/** Shades spans by weight, given as [index, weight], and removes the shade of all others. */
export function shade(spans, pairs) {
  const weights = new Map(pairs);
  spans.forEach((span, index) => span.style.setProperty("--weight", weights.get(index) ?? 0));
}

/** Returns the words with the largest weights, such as: “book” 93 %, “old” 5 %. */
export function describeWords(spans, pairs, most = 3) {
  const shown = pairs.filter(([, weight], rank) => rank === 0 || (rank < most && weight >= 0.05));
  return shown.map(([index, weight]) => `“${spans[index].textContent}” ${Math.round(100 * weight)}\u00a0%`).join(", ");
}
