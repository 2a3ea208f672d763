// Words of two texts, and how strongly each target word attended to each source word.

/** A text as nodes, a span for each word; places count characters, which JavaScript's own indices do not. */
export function divided(text, words) {
  const characters = Array.from(text);
  const nodes = [];
  let at = 0;
  for (const { start, end } of words) {
    nodes.push(characters.slice(at, start).join(""));
    const span = document.createElement("span");
    span.className = "word";
    span.textContent = characters.slice(start, end).join("");
    nodes.push(span);
    at = end;
  }
  nodes.push(characters.slice(at).join(""));
  return nodes;
}

/** Which source words a target word attended to: [number, weight] each, strongest first. */
export function attendedBy({ target }, number) {
  const { first, weights } = target[number];
  return ranked(weights.map((weight, n) => [first + n, weight]));
}

/** Which target words attended to a source word, alike. */
export function attendingTo({ target }, number) {
  return ranked(target.map(({ first, weights }, n) => [n, weights[number - first] ?? 0]));
}

function ranked(pairs) {
  return pairs.filter(([, weight]) => weight > 0).sort((a, b) => b[1] - a[1]);
}

/** The number of the word at a place, or -1. */
export function wordAt(words, place) {
  return words.findIndex(({ start, end }) => start <= place && place < end);
}

/** Shades spans by the weights of their numbers, and takes shade from all others. */
export function shade(spans, pairs) {
  const weights = new Map(pairs);
  spans.forEach((span, number) => span.style.setProperty("--weight", weights.get(number) ?? 0));
}

/** Such as: “book” 93 %, “old” 5 %. */
export function named(spans, pairs, most = 3) {
  const shown = pairs.filter(([, weight], rank) => rank === 0 || (rank < most && weight >= 0.05));
  return shown.map(([number, weight]) => `“${spans[number].textContent}” ${Math.round(100 * weight)}\u00a0%`).join(", ");
}
