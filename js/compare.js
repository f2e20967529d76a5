/** Two pictures in one place, with a divider between them. */

import { word } from "./words.js";

/** One pair of a batch at a time, as large as there is room. All share the divider. */
export class Comparer {
  /** @param {() => string[]} labels what the left and the right side are called. */
  constructor(labels) {
    this.labels = labels;
    this.addresses = [];
    this.at = 0;
    this.pair = document.createElement("div");
    this.pair.className = "pair";
    this.pair.tabIndex = 0; // with the focus, it takes the keys and the wheel
    this.pair.title = word("compareHint");
    this.divider = document.createElement("input");
    Object.assign(this.divider, { type: "range", min: 0, max: 100, step: 1, value: 50 });
    this.divider.setAttribute("aria-label", word("divider"));
    this.divider.addEventListener("input", () => this.#divide(Number(this.divider.value) / 100));
    this.divider.addEventListener("pointerdown", (event) => event.stopPropagation()); // Nodes 2.0 would drag the node
    this.previous = this.#button("‹", "previousPicture", -1);
    this.next = this.#button("›", "nextPicture", 1);
    this.count = document.createElement("span");
    const row = document.createElement("div");
    row.className = "row";
    row.append(this.divider, this.previous, this.count, this.next);
    this.element = document.createElement("div");
    this.element.className = "detail-compare";
    this.element.append(this.pair, row);
    this.element.addEventListener("keydown", (event) => this.#press(event));
    this.pair.addEventListener("pointermove", ({ clientX }) => {
      const { left, width } = this.pair.firstElementChild?.getBoundingClientRect() ?? {};
      if (width) this.#divide((clientX - left) / width);
    });
    this.pair.addEventListener("dblclick", () => this.#resize());
    this.#divide(0.5);
  }

  /**
   * @param {string[]} left addresses of pictures.
   * @param {string[]} right as many.
   */
  show(left, right) {
    this.addresses = right.map((address, number) => [left[number], address]);
    this.#turn(0);
  }

  /** Shows another pair, so many further on. */
  #turn(by) {
    const last = Math.max(this.addresses.length - 1, 0);
    this.at = Math.min(Math.max(this.at + by, 0), last);
    const sides = ["left", "right"];
    const labels = this.labels();
    const pictures = document.createElement("div");
    pictures.className = "pictures";
    pictures.append(
      ...(this.addresses[this.at] ?? []).flatMap((address, side) => {
        const image = new Image();
        Object.assign(image, { src: address, alt: labels[side], className: sides[side], draggable: false });
        const label = document.createElement("span");
        Object.assign(label, { textContent: labels[side], className: `label ${sides[side]}` });
        return [image, label];
      }),
    );
    this.pair.replaceChildren(pictures);
    this.count.textContent = word("ofAll")(this.at + 1, last + 1);
    this.previous.disabled = this.at === 0;
    this.next.disabled = this.at === last;
    for (const each of [this.previous, this.count, this.next]) each.hidden = last === 0;
  }

  #divide(place) {
    const within = Math.min(Math.max(place, 0), 1);
    this.divider.value = Math.round(within * 100);
    this.element.style.setProperty("--divide", within);
  }

  #resize() {
    this.element.classList.toggle("full-size");
  }

  #press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const divide = (by) => this.#divide((Number(this.divider.value) + by) / 100);
    const does = {
      ArrowLeft: () => divide(-1),
      ArrowRight: () => divide(1),
      Home: () => divide(-100),
      End: () => divide(100),
      PageUp: () => this.#turn(-1),
      PageDown: () => this.#turn(1),
      ...(event.target === this.pair && { Enter: () => this.#resize() }),
    }[event.key];
    if (event.key.startsWith("Arrow") || does) event.stopPropagation(); // the page moves nodes by the same keys
    if (!does) return;
    event.preventDefault();
    does();
  }

  #button(sign, name, by) {
    const button = document.createElement("button");
    button.textContent = sign;
    button.setAttribute("aria-label", word(name));
    button.addEventListener("pointerdown", (event) => event.stopPropagation());
    button.addEventListener("click", () => this.#turn(by));
    return button;
  }
}
