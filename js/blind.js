/** Pairs of pictures to choose from, one at a time, without saying which is which. */

import { same } from "./same.js";
import { word } from "./words.js";

const LETTERS = { left: "l", noDifference: "=", right: "r" };

/** What was chosen is on the node, in an ordinary widget: "<key>:<letters>", a letter for each of the first pairs. */
export class BlindChoice {
  /**
   * @param {object} node
   * @param {() => { choices: string, source: string | undefined }} node.read what its widget holds, and the title of the
   *   node that sets it by a link, "" where that is out of sight.
   * @param {(choices: string) => void} node.write as one change, to be undone at once.
   */
  constructor({ read, write }) {
    this.read = read;
    this.write = write;
    this.ran = { key: "", pairs: [], choices: "", said: "" };
    this.pair = document.createElement("div");
    this.pair.className = "pair";
    this.pair.tabIndex = 0; // with the focus, it takes the keys
    this.pair.title = word("blindHint");
    this.pair.setAttribute("role", "group");
    this.said = document.createElement("div");
    this.said.className = "said";
    this.said.setAttribute("role", "status");
    const stage = document.createElement("div");
    stage.className = "stage";
    stage.append(this.pair, this.said);
    this.choosing = Object.keys(LETTERS).map((name) => this.#button(name, () => this.#choose(LETTERS[name])));
    this.back = this.#button("back", () => this.#goBack());
    this.count = document.createElement("span");
    const row = document.createElement("div");
    row.className = "row";
    row.append(...this.choosing, this.count, this.back);
    this.element = document.createElement("div");
    this.element.className = "detail-blind widget-expands"; // which Nodes 2.0 of 1.32's page gives the room there is
    this.element.append(stage, row);
    this.element.addEventListener("keydown", (event) => this.#press(event));
    this.show();
  }

  /**
   * Takes in what a run handed out.
   *
   * @param {object} ran
   * @param {string} ran.key of its pictures.
   * @param {string[][]} ran.pairs addresses of the left and the right picture of each pair.
   * @param {string} ran.choices what had been chosen.
   * @param {string} ran.said what came of it.
   */
  tell(ran) {
    this.ran = ran;
    this.show();
  }

  /** Draws what the widget holds now, if that changed. */
  show() {
    const { choices, source } = this.read();
    const state = { ...this.ran, choices, source };
    if (same(state, this.shown)) return;
    this.shown = state;
    const { pairs } = this.ran;
    const at = this.#letters().length;
    const all = at >= pairs.length;
    const sides = ["left", "right"].map((name) => word(name));
    this.pair.replaceChildren(
      ...(pairs[at] ?? []).map((address, side) => {
        const image = new Image();
        Object.assign(image, { src: address, alt: sides[side], draggable: false });
        return image;
      }),
    );
    this.count.textContent = pairs.length ? word("ofAll")(Math.min(at + 1, pairs.length), pairs.length) : "";
    this.pair.setAttribute("aria-label", `${word("whichIsBetter")} ${this.count.textContent}`.trim());
    const linked = source !== undefined;
    this.said.textContent = linked ? word("fromLink")(source) : this.#message(all, choices);
    // Not "disabled": that would take the focus away, and the next key would be the page's.
    for (const each of this.choosing) each.setAttribute("aria-disabled", all || linked);
    this.back.setAttribute("aria-disabled", at === 0 || linked);
  }

  #message(all, choices) {
    if (!this.ran.pairs.length) return word("blindEmpty");
    if (choices === this.ran.choices) return this.ran.said;
    return all ? word("allChosen") : "";
  }

  /** What has been chosen of these pictures; of others it counts as nothing. */
  #letters() {
    const [key, letters] = this.read().choices.split(":");
    return key === this.ran.key && /^[lr=]*$/.test(letters) ? letters : "";
  }

  #choose(letter) {
    const letters = this.#letters();
    if (letters.length < this.ran.pairs.length) this.#set(letters + letter);
  }

  #goBack() {
    const letters = this.#letters();
    if (letters) this.#set(letters.slice(0, -1));
  }

  #set(letters) {
    if (this.read().source !== undefined) return;
    this.write(`${this.ran.key}:${letters}`);
    this.show();
  }

  #press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const does = {
      ArrowLeft: () => this.#choose(LETTERS.left),
      ArrowDown: () => this.#choose(LETTERS.noDifference),
      ArrowRight: () => this.#choose(LETTERS.right),
      Backspace: () => this.#goBack(),
    }[event.key];
    // The page moves nodes by the same keys, and deletes them.
    if (event.key.startsWith("Arrow") || event.key === "Delete" || does) event.stopPropagation();
    if (!does) return;
    event.preventDefault();
    if (!event.repeat) does();
  }

  #button(name, does) {
    const button = document.createElement("button");
    button.textContent = word(name);
    button.addEventListener("pointerdown", (event) => event.stopPropagation()); // Nodes 2.0 would drag the node
    button.addEventListener("click", does);
    return button;
  }
}
