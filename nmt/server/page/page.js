import { ask, Refusal } from "./client.js";
import { Reader } from "./reader.js";
import { divided } from "./words.js";

const PAUSE = 400; // milliseconds without a key after which a text is translated
const LONG = 300; // characters of a text that is set smaller, and translated in one way only
const ALTERNATIVES = 3;

const at = (id) => document.getElementById(id);
const field = at("text");
const reader = new Reader(field, at("behind"), at("translation"), at("looked"));

let about = null; // what the server tells of itself, once it does
let key = ""; // kept here alone
let candidates = []; // translations of the text, the one that is shown first
let request = null; // the AbortController of the one that is under way
let timer = 0;

function plan(milliseconds, action = translate) {
  clearTimeout(timer);
  timer = setTimeout(action, milliseconds);
}

function changed() {
  request?.abort();
  notify("");
  reader.forget();
  const length = Array.from(field.value).length;
  document.body.classList.toggle("long", length > LONG);
  const most = about?.max_characters ?? Infinity;
  at("count").textContent = length > 0.8 * most ? `${number(length)} of ${number(most)} characters` : "";
  clearTimeout(timer);
  if (!field.value.trim()) {
    show([]);
  } else if (length > most) {
    notify(`This text has ${number(length)} characters, and the server takes ${number(most)} at a time: shorten it.`);
  } else {
    plan(PAUSE);
  }
}

async function translate() {
  clearTimeout(timer);
  request?.abort();
  const ours = (request = new AbortController());
  const text = field.value;
  at("translation").setAttribute("aria-busy", "true");
  try {
    if (!about) introduce(await ask("about", { key, signal: ours.signal }));
    if (!text.trim()) return notify("");
    const most = Array.from(text).length > LONG ? 1 : Math.min(1 + ALTERNATIVES, about.max_n_best);
    const body = { text, n_best: most, alignments: true };
    const answer = await ask("translate", { body, key, signal: ours.signal });
    const [best] = answer.translations;
    notify("");
    show([best, ...best.alternatives]);
    at("said").textContent = best.text;
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Refusal)) throw error;
    refused(error);
  } finally {
    if (request === ours) at("translation").removeAttribute("aria-busy");
  }
}

function refused({ message, status, seconds }) {
  if (status === 401) {
    at("key-form").hidden = false;
    if (key) notify("The server does not know this key.");
    at("key").focus();
    return;
  }
  const retry = seconds === null ? "" : ` Trying again in ${seconds} s.`;
  notify(message + retry, status === 0 || status >= 429);
  if (seconds !== null) plan(1000 * seconds);
}

function notify(words, retriable = false) {
  at("words").textContent = words;
  at("again").hidden = !retriable;
}

function show(found, focused = -1) {
  candidates = found;
  reader.read(found[0]);
  at("copy").hidden = !found.length || !navigator.clipboard;
  at("copy").textContent = "Copy";
  const known = new Set(found.length ? wordsOf(found[0]) : []);
  const items = found.slice(1).map((candidate, n) => {
    const button = document.createElement("button");
    button.type = "button";
    button.lang = about.target_language ?? "";
    button.dir = "auto";
    button.append(...divided(candidate.text, candidate.alignment.target));
    for (const span of button.children) span.className = known.has(span.textContent) ? "" : "new";
    button.addEventListener("click", () => show([candidate, ...found.filter((other) => other !== candidate)], n));
    const item = document.createElement("li");
    item.append(button);
    return item;
  });
  at("others").hidden = !items.length;
  at("others").querySelector("ol").replaceChildren(...items);
  if (focused >= 0) items[focused].firstChild.focus();
}

function wordsOf({ text, alignment }) {
  const characters = Array.from(text);
  return alignment.target.map(({ start, end }) => characters.slice(start, end).join(""));
}

function introduce(found) {
  about = found;
  at("key-form").hidden = true;
  const [source, target] = [found.source_language, found.target_language];
  if (source && target) {
    at("source-language").textContent = name(source);
    at("target-language").textContent = name(target);
    document.title = at("direction").textContent = `${name(source)} to ${name(target)}`;
    field.lang = source;
    at("translation").lang = target;
  }
  at("model").textContent = `${found.name}, version ${found.version}`;
}

function name(code) {
  try {
    return new Intl.DisplayNames(["en"], { type: "language" }).of(code.replaceAll("_", "-"));
  } catch {
    return code; // no code that anybody knows
  }
}

function number(count) {
  return count.toLocaleString("en");
}

field.addEventListener("input", changed);
field.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    translate();
  }
});
at("again").addEventListener("click", translate);
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = at("key").value.trim();
  at("key").value = "";
  notify("");
  field.focus();
  translate();
});
at("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(candidates[0].text);
  at("copy").textContent = "Copied";
});

changed(); // a browser may have kept the text of an earlier visit
translate();
