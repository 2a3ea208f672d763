import { send, ServerError } from "./client.js";
import { Reader } from "./reader.js";
import { isDoubtful, makeSpans } from "./words.js";

const PAUSE = 400; // milliseconds without a key press after which the text is translated
const LONG = 300; // characters of a text that is shown in a smaller font, without alternatives
const ALTERNATIVES = 3;

const get = (id) => document.getElementById(id);
const field = get("text");
const reader = new Reader(field, get("mirror"), get("translation"), get("attention"));

let about = null; // the response of /about, once it has arrived
let key = ""; // kept here only
let translations = []; // of the text, beginning with the one that is shown
let request = null; // AbortController of the current request
let timer = 0;

function schedule(milliseconds) {
  clearTimeout(timer);
  timer = setTimeout(translate, milliseconds);
}

function handleInput() {
  request?.abort();
  showMessage("");
  reader.forget();
  const [length, limit] = showCount();
  document.body.classList.toggle("long", length > LONG);
  clearTimeout(timer);
  if (!field.value.trim()) {
    showTranslations([]);
  } else if (length > limit) {
    showMessage(`This text has ${format(length)} characters. The server accepts at most ${format(limit)}.`);
  } else {
    schedule(PAUSE);
  }
}

function showCount() {
  const length = Array.from(field.value).length;
  const limit = about?.max_characters ?? Infinity;
  get("count").textContent = length > 0.8 * limit ? `${format(length)} of ${format(limit)} characters` : "";
  return [length, limit];
}

async function translate() {
  clearTimeout(timer);
  request?.abort();
  const current = (request = new AbortController());
  const text = field.value;
  get("translation").setAttribute("aria-busy", "true");
  try {
    if (!about) showAbout(await send("about", { key, signal: current.signal }));
    if (!text.trim()) return showMessage("");
    // More alternatives than the beam holds would change the translation.
    const most = Math.min(1 + ALTERNATIVES, about.max_n_best, about.beam_size);
    const wanted = Array.from(text).length > LONG ? 1 : most;
    const body = { text, n_best: wanted, alignments: true };
    const response = await send("translate", { body, key, signal: current.signal });
    const [best] = response.translations;
    const messages = best.warnings.map(({ message }) => message);
    const isDoubted = best.alignment.target.some((word) => isDoubtful(best, word));
    if (isDoubted) messages.push("The model is unsure of what is underlined with dots.");
    showMessage(messages.join(" "));
    showTranslations([best, ...best.alternatives]);
    get("announcement").textContent = best.text;
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof ServerError)) throw error;
    showError(error);
  } finally {
    if (request === current) get("translation").removeAttribute("aria-busy");
  }
}

function showError({ message, status, retryAfter }) {
  if (status === 401) {
    get("key-form").hidden = false;
    if (key) showMessage("This key is not valid.");
    get("key").focus();
    return;
  }
  const retry = retryAfter === null ? "" : ` Retrying in ${retryAfter} s.`;
  showMessage(message + retry, status === 0 || status >= 429);
  if (retryAfter !== null) schedule(1000 * retryAfter);
}

function showMessage(message, canRetry = false) {
  get("message").textContent = message;
  get("retry").hidden = !canRetry;
}

function showTranslations(found, focused = -1) {
  translations = found;
  reader.read(found[0]);
  get("copy").hidden = !found.length || !navigator.clipboard;
  get("copy").textContent = "Copy";
  const known = new Set(found.length ? getWords(found[0]) : []);
  const items = found.slice(1).map((alternative, n) => {
    const button = document.createElement("button");
    button.type = "button";
    button.lang = about.target_language ?? "";
    button.dir = "auto";
    button.append(...makeSpans(alternative.text, alternative.alignment.target));
    for (const span of button.children) span.className = known.has(span.textContent) ? "" : "different";
    button.addEventListener("click", () => {
      showTranslations([alternative, ...found.filter((other) => other !== alternative)], n);
    });
    const item = document.createElement("li");
    item.append(button);
    return item;
  });
  get("alternatives").hidden = !items.length;
  get("alternatives").querySelector("ol").replaceChildren(...items);
  if (focused >= 0) items[focused].firstChild.focus();
}

function getWords({ text, alignment }) {
  const characters = Array.from(text);
  return alignment.target.map(({ start, end }) => characters.slice(start, end).join(""));
}

function showAbout(response) {
  about = response;
  get("key-form").hidden = true;
  showCount(); // of text that was there before the limit was known
  const [source, target] = [about.source_language, about.target_language];
  if (source && target) {
    get("source-language").textContent = getLanguage(source);
    get("target-language").textContent = getLanguage(target);
    document.title = get("direction").textContent = `${getLanguage(source)} to ${getLanguage(target)}`;
    field.lang = source;
    get("translation").lang = target;
  }
  get("model").textContent = `${about.name}, version ${about.version}`;
}

function getLanguage(code) {
  try {
    return new Intl.DisplayNames(["en"], { type: "language" }).of(code.replaceAll("_", "-"));
  } catch {
    return code; // not a code that the browser knows
  }
}

function format(number) {
  return number.toLocaleString("en");
}

field.addEventListener("input", handleInput);
field.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    translate();
  }
});
get("retry").addEventListener("click", translate);
get("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = get("key").value.trim();
  get("key").value = "";
  showMessage("");
  field.focus();
  translate();
});
get("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(translations[0].text);
  get("copy").textContent = "Copied";
});

handleInput(); // the browser may have restored the text of an earlier visit
translate();
