import { attendedBy, attendingTo, divided, named, shade, wordAt } from "./words.js";

const MOVES = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
const CARET = new Set(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"]);

/** Shows a text and its translation, and for a word of either what it attended to in the other. */
export class Reader {
  #field;
  #behind;
  #page;
  #looked;
  #alignment = null; // null while the text is not the one that was translated
  #source = []; // spans of the words
  #target = [];
  #pinned = null; // a target word that stays chosen

  /**
   * @param field the text area, whose words cannot be shaded
   * @param behind what stands behind it with the same text
   * @param page where the translation is put
   * @param looked where it is said what a word attended to
   */
  constructor(field, behind, page, looked) {
    this.#field = field;
    this.#behind = behind;
    this.#page = page;
    this.#looked = looked;
    page.addEventListener("pointerover", ({ target }) => this.#choose(this.#target.indexOf(target)));
    page.addEventListener("pointerleave", () => this.#rest());
    page.addEventListener("focusin", ({ target }) => this.#choose(this.#target.indexOf(target)));
    page.addEventListener("focusout", () => this.#rest());
    page.addEventListener("click", ({ target }) => this.#pin(this.#target.indexOf(target)));
    page.addEventListener("keydown", (event) => this.#keyed(event));
    field.addEventListener("pointermove", ({ clientX, clientY }) => this.#point(clientX, clientY));
    field.addEventListener("pointerleave", () => this.#rest());
    field.addEventListener("click", () => this.#atCaret());
    field.addEventListener("keyup", ({ key }) => CARET.has(key) && this.#atCaret());
    field.addEventListener("blur", () => this.#rest());
  }

  /** Takes the words away, for the text has changed; the translation stays until there is another. */
  forget() {
    this.#pinned = null;
    this.#clear();
    this.#alignment = null;
    this.#source = [];
    this.#behind.replaceChildren(this.#field.value, "\u200b"); // which gives the last line its height
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
    this.#behind.replaceChildren(...divided(this.#field.value, alignment.source), "\u200b");
    this.#page.replaceChildren(...divided(text, alignment.target));
    this.#source = [...this.#behind.children];
    this.#target = [...this.#page.children];
    this.#target.forEach((span, number) => {
      span.setAttribute("role", "button");
      span.setAttribute("aria-pressed", "false");
      span.tabIndex = number ? -1 : 0;
    });
  }

  #choose(number) {
    if (number < 0) return;
    const pairs = attendedBy(this.#alignment, number);
    this.#mark(this.#target[number], this.#source, pairs, "attended to");
  }

  #chooseSource(number) {
    if (number < 0) return this.#rest();
    const pairs = attendingTo(this.#alignment, number);
    this.#mark(this.#source[number], this.#target, pairs, "had the attention of");
  }

  #mark(span, others, pairs, verb) {
    this.#clear();
    span.classList.add("asked");
    shade(others, pairs);
    this.#looked.textContent = pairs.length ? `“${span.textContent}” ${verb} ${named(others, pairs)}` : "";
  }

  #clear() {
    shade(this.#source, []);
    shade(this.#target, []);
    for (const span of [...this.#source, ...this.#target]) span.classList.remove("asked");
    this.#looked.textContent = "";
  }

  /** Shows the chosen word again, or nothing. */
  #rest() {
    const focused = this.#target.indexOf(document.activeElement);
    const number = focused >= 0 ? focused : (this.#pinned ?? -1);
    if (number >= 0) this.#choose(number);
    else this.#clear();
  }

  #pin(number) {
    if (number < 0) return;
    this.#pinned = this.#pinned === number ? null : number;
    this.#target.forEach((span, n) => span.setAttribute("aria-pressed", String(n === this.#pinned)));
    this.#focus(number);
  }

  #focus(number) {
    this.#target.forEach((span, n) => (span.tabIndex = n === number ? 0 : -1));
    this.#target[number].focus();
  }

  #keyed(event) {
    const number = this.#target.indexOf(event.target);
    if (number < 0) return;
    if (event.key === "Enter" || event.key === " ") {
      this.#pin(number);
    } else if (event.key === "Escape") {
      this.#pinned = null;
      this.#target[number].setAttribute("aria-pressed", "false");
      this.#field.focus();
    } else if (event.key in MOVES) {
      const turned = getComputedStyle(this.#page).direction === "rtl" && Number.isFinite(MOVES[event.key]) ? -1 : 1;
      this.#focus(Math.max(0, Math.min(this.#target.length - 1, number + turned * MOVES[event.key])));
    } else {
      return;
    }
    event.preventDefault();
  }

  #point(x, y) {
    const span = document.elementsFromPoint(x, y).find((element) => this.#source.includes(element));
    this.#chooseSource(span ? this.#source.indexOf(span) : -1);
  }

  #atCaret() {
    if (!this.#alignment) return;
    const place = Array.from(this.#field.value.slice(0, this.#field.selectionStart)).length;
    this.#chooseSource(wordAt(this.#alignment.source, place));
  }
}
