/** Two pictures in one place, with a divider between them. */

import { word } from "./words.js";

/** All pairs, one divider: where it stands in one of them, it stands in all. */
export class Comparer {
  constructor() {
    this.pairs = document.createElement("div");
    this.pairs.className = "pairs";
    this.divider = document.createElement("input");
    Object.assign(this.divider, { type: "range", min: 0, max: 100, step: 1, value: 50 });
    this.divider.setAttribute("aria-label", word("divider"));
    this.divider.addEventListener("input", () => this.#divide(Number(this.divider.value) / 100));
    this.divider.addEventListener("pointerdown", (event) => event.stopPropagation()); // Nodes 2.0 would drag the node
    this.divider.addEventListener("keydown", (event) => event.stopPropagation()); // the page moves nodes by the same keys
    this.element = document.createElement("div");
    this.element.className = "detail-compare";
    this.element.append(this.pairs, this.divider);
    this.pairs.addEventListener("pointermove", (event) => {
      const pair = event.target.closest(".pair");
      if (!pair) return;
      const { left, width } = pair.getBoundingClientRect();
      this.#divide(Math.min(Math.max((event.clientX - left) / width, 0), 1));
    });
    this.pairs.addEventListener("dblclick", () => this.element.classList.toggle("full-size"));
    this.pairs.tabIndex = 0; // with the focus, it takes the wheel
    this.pairs.title = word("fullSize");
    this.#divide(0.5);
  }

  /**
   * @param {string[]} left addresses of pictures.
   * @param {string[]} right as many.
   */
  show(left, right) {
    this.pairs.replaceChildren(
      ...right.map((address, number) => {
        const pair = document.createElement("div");
        pair.className = "pair";
        pair.append(picture(left[number], "left"), picture(address, "right"));
        return pair;
      }),
    );
  }

  #divide(place) {
    this.divider.value = Math.round(place * 100);
    this.element.style.setProperty("--divide", place);
  }
}

function picture(address, side) {
  const image = new Image();
  image.src = address;
  image.alt = side;
  image.className = side;
  image.draggable = false;
  return image;
}
