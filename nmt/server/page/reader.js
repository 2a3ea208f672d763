import { describeWords, findWord, isDoubtful, makeSpans, shade, sourceWeights, targetWeights } from "./words.js";

const MOVES = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
const CARET_KEYS = new Set(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"]);

/** Shows a text and its translation, and the attention of a word that the user selects in either. */
export class Reader {
  #field;
  #mirror;
  #page;
  #description;
  #alignment = null; // null while the text differs from the one that was translated
  #source = []; // spans of the words
  #target = [];
  #pinned = null; // index of a target word that stays selected

  /**
   * @param field the text area; its words cannot be shaded
   * @param mirror an element behind the text area with the same text, whose words can be
   * @param page the element for the translation
   * @param description the element for the description of a word's attention
   */
  constructor(field, mirror, page, description) {
    this.#field = field;
    this.#mirror = mirror;
    this.#page = page;
    this.#description = description;
    page.addEventListener("pointerover", ({ target }) => this.#selectTarget(this.#target.indexOf(target)));
    page.addEventListener("pointerleave", () => this.#deselect());
    page.addEventListener("focusin", ({ target }) => this.#selectTarget(this.#target.indexOf(target)));
    page.addEventListener("focusout", () => this.#deselect());
    page.addEventListener("click", ({ target }) => this.#pin(this.#target.indexOf(target)));
    page.addEventListener("keydown", (event) => this.#handleKey(event));
    field.addEventListener("pointermove", ({ clientX, clientY }) => this.#selectAtPoint(clientX, clientY));
    field.addEventListener("pointerleave", () => this.#deselect());
    field.addEventListener("click", () => this.#selectAtCaret());
    field.addEventListener("keyup", ({ key }) => CARET_KEYS.has(key) && this.#selectAtCaret());
    field.addEventListener("blur", () => this.#deselect());
  }

  /** Removes the words because the text has changed. The translation stays until there is a new one. */
  forget() {
    this.#pinned = null;
    this.#clear();
    this.#alignment = null;
    this.#source = [];
    this.#mirror.replaceChildren(this.#field.value, "\u200b"); // a zero-width space gives an empty last line its height
    for (const span of this.#target) span.removeAttribute("tabindex");
    this.#target = [];
  }

  /** Shows a translation with its alignment, or none. */
  read(translation) {
    this.forget();
    if (!translation) {
      this.#page.replaceChildren();
      return;
    }
    const { text, alignment } = translation;
    this.#alignment = alignment;
    this.#mirror.replaceChildren(...makeSpans(this.#field.value, alignment.source), "\u200b");
    this.#page.replaceChildren(...makeSpans(text, alignment.target));
    this.#source = [...this.#mirror.children];
    this.#target = [...this.#page.children];
    // A roving tabindex: Tab reaches one word, the arrow keys the others.
    this.#target.forEach((span, index) => {
      span.setAttribute("role", "button");
      span.setAttribute("aria-pressed", "false");
      span.tabIndex = index ? -1 : 0;
      span.classList.toggle("doubtful", isDoubtful(translation, alignment.target[index]));
    });
  }

  #selectTarget(index) {
    if (index < 0) return;
    const pairs = sourceWeights(this.#alignment, index);
    this.#mark(this.#target[index], this.#source, pairs, "attended to");
  }

  #selectSource(index) {
    if (index < 0) return this.#deselect();
    const pairs = targetWeights(this.#alignment, index);
    this.#mark(this.#source[index], this.#target, pairs, "received attention from");
  }

  #mark(span, others, pairs, verb) {
    this.#clear();
    span.classList.add("selected");
    shade(others, pairs);
    this.#description.textContent = pairs.length ? `“${span.textContent}” ${verb} ${describeWords(others, pairs)}` : "";
  }

  #clear() {
    shade(this.#source, []);
    shade(this.#target, []);
    for (const span of [...this.#source, ...this.#target]) span.classList.remove("selected");
    this.#description.textContent = "";
  }

  /** Selects the focused or pinned word again, or none. */
  #deselect() {
    const focused = this.#target.indexOf(document.activeElement);
    const index = focused >= 0 ? focused : (this.#pinned ?? -1);
    if (index >= 0) this.#selectTarget(index);
    else this.#clear();
  }

  #pin(index) {
    if (index < 0) return;
    this.#pinned = this.#pinned === index ? null : index;
    this.#target.forEach((span, n) => span.setAttribute("aria-pressed", String(n === this.#pinned)));
    this.#focus(index);
  }

  #focus(index) {
    this.#target.forEach((span, n) => (span.tabIndex = n === index ? 0 : -1));
    this.#target[index].focus();
  }

  #handleKey(event) {
    const index = this.#target.indexOf(event.target);
    if (index < 0) return;
    if (event.key === "Enter" || event.key === " ") {
      this.#pin(index);
    } else if (event.key === "Escape") {
      this.#pinned = null;
      this.#target[index].setAttribute("aria-pressed", "false");
      this.#field.focus();
    } else if (event.key in MOVES) {
      // In right-to-left text, the next word is on the left.
      const sign = getComputedStyle(this.#page).direction === "rtl" && Number.isFinite(MOVES[event.key]) ? -1 : 1;
      this.#focus(Math.max(0, Math.min(this.#target.length - 1, index + sign * MOVES[event.key])));
    } else {
      return;
    }
    event.preventDefault();
  }

  #selectAtPoint(x, y) {
    const span = document.elementsFromPoint(x, y).find((element) => this.#source.includes(element));
    this.#selectSource(span ? this.#source.indexOf(span) : -1);
  }

  #selectAtCaret() {
    if (!this.#alignment) return;
    const position = Array.from(this.#field.value.slice(0, this.#field.selectionStart)).length;
    this.#selectSource(findWord(this.#alignment.source, position));
  }
}
