/** The panel on a guidance node: the DG scale, the layers over the model's blocks, and what the last run did. */

import {
  MOST,
  blockAt,
  bothLayersDragged,
  clamp,
  curveLine,
  isSingle,
  layersDragged,
  layersMoved,
  placeOfScale,
  placesOfLayers,
  scaleAt,
  warmths,
} from "./scales.js";
import { same } from "./same.js";
import { makeDraggable, makeSlider, showSlider } from "./slider.js";
import {
  isAdvice,
  word,
  wordsOfCovered,
  wordsOfHeat,
  wordsOfLayers,
  wordsOfPreset,
  wordsOfPresetAtLength,
  wordsOfReport,
  wordsOfReportAtLength,
  wordsOfScale,
  wordsOfThePast,
} from "./words.js";

const SCALE_STEP = 0.05;
const SVG = "http://www.w3.org/2000/svg";

/**
 * @typedef {object} Values what the ordinary widgets hold; of one that a link sets, what ran last, undefined before a run.
 * @property {number | undefined} scale
 * @property {number} usual the scale's default.
 * @property {number | undefined} start
 * @property {number | undefined} end
 * @property {number | undefined} from where in the schedule the guidance starts, 0 to 1.
 * @property {number | undefined} to where it ends.
 * @property {boolean} enabled
 * @property {string} mode "bypassed" or "muted" where the page leaves the node out; otherwise empty.
 * @property {boolean} missing whether the node, as it is switched, leaves the next one without its input.
 * @property {boolean} changed whether a widget holds something else than what ran last.
 * @property {string} title of the node.
 * @property {Object<string, string>} changedOptions those of the options that the node itself changes.
 * @property {string} curve how the scale goes over the guided part, as its widget has it.
 * @property {Object<string, string>} linked which of these five a link sets, and the title of the node it comes from; ""
 *   where that is out of sight.
 */

export class Panel {
  /**
   * @param {object} node
   * @param {(ran?: Object<string, number>) => Values} node.read `ran`: what the last run was made with, by input name.
   * @param {(changed: Partial<Values>) => void} node.write the scale, the layers, the part of the schedule.
   * @param {() => void} node.begin before a change that is to be undone at once.
   * @param {() => void} node.end
   * @param {(report: object) => object | undefined} node.presetOf what is recommended for the model of a report.
   */
  constructor({ read, write, begin, end, presetOf }) {
    this.read = () => read(this.report?.made_with); // a server of an older version does not say
    this.presetOf = presetOf;
    this.report = undefined;

    this.scale = element("div", "handle");
    this.number = element("span", "number");
    this.scaleTrack = element("div", "track", this.scale);
    this.line = document.createElementNS(SVG, "polyline");
    this.curve = document.createElementNS(SVG, "svg");
    for (const [name, value] of Object.entries({ viewBox: "0 0 1 1", preserveAspectRatio: "none", role: "img" })) {
      this.curve.setAttribute(name, value);
    }
    this.curve.setAttribute("class", "curve");
    this.curve.append(this.line);
    this.from = element("div", "bracket from");
    this.to = element("div", "bracket to");
    this.both = element("div", "between");
    this.heat = element("div", "heat");
    this.strip = element("div", "strip", this.heat, this.both, this.from, this.to);
    this.layers = element("div", "words");
    this.happened = element("div", "words faint");
    this.where = element("div", "words where");
    this.recommended = element("span", "words");
    this.use = element("button", "use");
    this.use.textContent = word("use");
    this.warnings = element("div", "warnings");
    this.said = element(
      "div",
      "said",
      this.warnings, // first, where all of it is seen
      this.happened,
      this.where,
      element("div", "preset", this.recommended, this.use),
    );
    this.said.setAttribute("role", "status");
    this.said.dataset.captureWheel = "true"; // asks Nodes 2.0 to let it scroll when it has the focus
    this.mask = element("canvas", "mask");
    this.mask.setAttribute("role", "img");
    this.mask.hidden = true;
    const name = element("span", "name");
    name.textContent = word("detail");
    const row = element("div", "row", name, this.scaleTrack, this.number);
    this.element = element(
      "div",
      "detail-guidance widget-expands", // which Nodes 2.0 of 1.32's page gives the room there is
      row,
      this.curve,
      this.strip,
      this.layers,
      element("div", "last", this.said, this.mask),
    );
    this.element.setAttribute("role", "group");

    const onTrack = (track) => (event) => {
      const { left, width } = track.getBoundingClientRect();
      return clamp((event.clientX - left) / width, 0, 1);
    };
    const setScale = (scale) => write({ scale });
    makeSlider(this.scale, {
      begin,
      end,
      placeOf: onTrack(this.scaleTrack),
      drag: (place) => setScale(scaleAt(place)),
      move: (steps) => {
        const { scale } = this.read();
        setScale(Number(clamp(scale + steps * SCALE_STEP, 0, Math.max(scale, MOST)).toFixed(3)));
      },
      reset: () => setScale(this.read().usual),
    });
    this.number.addEventListener("dblclick", () => this.scale.dispatchEvent(new MouseEvent("dblclick")));
    this.scaleTrack.addEventListener("pointerdown", (event) => {
      if (event.target !== this.scaleTrack || event.button !== 0 || "scale" in this.read().linked) return;
      event.stopPropagation();
      begin();
      setScale(scaleAt(onTrack(this.scaleTrack)(event)));
      end();
    });

    this.use.addEventListener("pointerdown", (event) => event.stopPropagation()); // Nodes 2.0 would drag the node
    this.use.addEventListener("click", () => {
      const { layer, scale, start_percent: from } = this.presetOf(this.report);
      begin();
      write({ scale, start: layer, end: layer, from, to: 1 });
      end();
    });

    const placeOf = onTrack(this.strip);
    const layers = () => layersOf(this.read());
    for (const [handle, which] of [
      [this.from, "start"],
      [this.to, "end"],
    ]) {
      makeSlider(handle, {
        begin,
        end,
        placeOf,
        drag: (place) => write(layersDragged(layers(), which, place, this.blocks)),
        // A single layer moves as one, and Shift opens it; an end of a range moves alone, and with Shift both do.
        move: (steps, { shiftKey }) => {
          const { linked } = this.read();
          const both = shiftKey !== isSingle(layers(), this.blocks);
          const free = !("start" in linked) && !("end" in linked);
          write(layersMoved(layers(), both && free ? "both" : which, steps, this.blocks));
        },
      });
    }
    let grabbed;
    makeDraggable(this.both, {
      begin: () => {
        grabbed = layers();
        begin();
      },
      end,
      placeOf,
      drag: (place) => write(bothLayersDragged(grabbed, place, this.blocks)),
    });
    this.strip.addEventListener("pointermove", (event) => {
      if (!this.report) return;
      this.strip.title = wordsOfHeat(blockAt(placeOf(event), this.blocks), this.report);
    });
    this.strip.title = this.happened.textContent = word("hint");
    this.show();
  }

  /** How many blocks the model has, 0 before the first run. */
  get blocks() {
    return this.report?.block_count ?? 0;
  }

  /** Takes in what a run reported. */
  tell(report) {
    this.report = report;
    this.#showReport();
    this.shown = undefined;
    this.show();
  }

  /** Draws what the ordinary widgets hold now, if that changed. */
  show() {
    const values = this.read();
    const preset = this.presetOf(this.report);
    if (same({ ...values, preset }, this.shown)) return;
    this.shown = { ...values, preset };
    this.#showScale(values);
    this.#showCurve(values);
    this.#showLayers(values);
    this.#showHappened(values);
    this.#showPreset(values, preset);
    this.element.setAttribute("aria-label", `Detail Guidance, ${values.title}`);
  }

  #showScale(values) {
    const { scale, linked } = values;
    const known = scale ?? 0;
    const place = placeOfScale(known);
    const state = stateOf(values);
    const words = state || wordsOf(values, ["scale"], wordsOfScale(known));
    this.element.classList.toggle("off", Boolean(state));
    this.scaleTrack.style.setProperty("--place", place);
    this.number.textContent = this.number.title = words;
    showSlider(this.scale, {
      place,
      label: word("scaleLabel"),
      low: 0,
      high: Math.max(known, MOST),
      value: known,
      words,
      disabled: "scale" in linked,
    });
  }

  /** That of the node itself, from the guided part's first noise level to its last. */
  #showCurve({ curve }) {
    const points = curveLine(curve);
    this.curve.toggleAttribute("hidden", !points);
    this.line.setAttribute("points", points);
    this.curve.setAttribute("aria-label", `${word("curveLabel")}: ${curve}`);
  }

  #showLayers(values) {
    const { linked } = values;
    const layers = layersOf(values);
    const [left, right] = placesOfLayers(layers, this.blocks);
    this.strip.style.setProperty("--from", left);
    this.strip.style.setProperty("--to", right);
    this.layers.textContent = this.layers.title = wordsOf(values, ["start", "end"], wordsOfLayers(layers, this.report));
    for (const [handle, place, label, which, low, high] of [
      [this.from, left, word("firstLayer"), "start", 0, layers.end],
      [this.to, right, word("lastLayer"), "end", layers.start, 1],
    ]) {
      handle.hidden = values[which] === undefined;
      showSlider(handle, {
        place,
        label,
        low,
        high,
        value: layers[which],
        words: wordsOf(values, [which], wordsOfLayers({ start: layers[which], end: layers[which] }, this.report)),
        disabled: which in linked,
      });
    }
    this.both.hidden = this.from.hidden || this.to.hidden;
    this.both.dataset.place = left;
    this.both.setAttribute("aria-disabled", "start" in linked || "end" in linked);
  }

  /** A report belongs to the values that it was made with: after a change it is that of the last run. What keeps the next
   * run from being one is said in the place of the last one's warnings. */
  #showHappened(values) {
    const { report } = this;
    const state = stateOf(values);
    const past = Boolean(report) && (Boolean(state) || values.changed);
    const warnings = values.missing ? [word("missing")] : (report?.warnings ?? []);
    this.warnings.textContent = this.warnings.title = warnings.join(" ");
    this.said.tabIndex = warnings.length ? 0 : -1;
    for (const each of [this.said, this.mask]) each.classList.toggle("stale", past && !values.missing);
    if (!report) return;
    this.happened.textContent = past ? wordsOfThePast(wordsOfReport(report), state) : wordsOfReport(report);
  }

  /** What is recommended for the model; it can be taken over where it is another setting and no link is in the way. */
  #showPreset({ scale, start, end, from, to, linked, changedOptions }, preset) {
    this.recommended.textContent = preset ? wordsOfPreset(preset, this.report) : "";
    this.recommended.title = preset ? wordsOfPresetAtLength(preset, this.report) : "";
    const ours = preset?.fingerprint === this.report?.fingerprint;
    const layers = start === preset?.layer && end === preset?.layer;
    const inUse = layers && scale === preset?.scale && from === preset?.start_percent && to === 1;
    this.use.hidden = !preset || !ours || !isAdvice(preset) || inUse;
    // With other options a scale may mean something else.
    this.use.disabled = Object.keys(linked).length > 0 || !same(changedOptions, preset?.options ?? {});
  }

  /** Where detail went, where words said so. */
  #showMask() {
    const { mask } = this.report; // a server of an older version does not say
    this.where.textContent = this.where.title = wordsOfCovered(this.report);
    this.mask.hidden = !mask;
    if (!mask) return;
    drawPercents(this.mask, mask);
    this.mask.title = this.where.textContent;
    this.mask.setAttribute("aria-label", this.where.textContent);
  }

  #showReport() {
    const { report } = this;
    this.happened.title = wordsOfReportAtLength(report);
    this.said.scrollTop = 0;
    this.#showMask();
    const cells = warmths(report.peak_ratios, report.block_count).map((warmth, block) => {
      const cell = element("span", report.block_names[block].endsWith(" 0") && block > 0 ? "cell new-kind" : "cell");
      if (warmth !== null) cell.style.setProperty("--warmth", warmth);
      return cell;
    });
    this.heat.replaceChildren(...cells);
  }
}

/** Draws rows of percents, one pixel for each, white for all. */
function drawPercents(canvas, rows) {
  canvas.width = rows[0].length;
  canvas.height = rows.length;
  const greys = rows.flat().flatMap((percent) => [...Array(3).fill((255 * percent) / 100), 255]);
  canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(greys), canvas.width), 0, 0);
}

/** What keeps the node from doing anything, in a word; empty where nothing does. */
function stateOf({ mode, enabled, scale, linked }) {
  if (mode) return word(mode);
  return !enabled || (scale === 0 && !("scale" in linked)) ? word("off") : "";
}

/** Where the layers stand; one that is not known stands where the other one does. */
const layersOf = ({ start, end, ...others }) => ({ ...others, start: start ?? end ?? 0, end: end ?? start ?? 0 });

/** What parts of the values are, in words; of those that links set, what they were in the last run, and where from. */
function wordsOf(values, parts, words) {
  const linked = parts.filter((part) => part in values.linked);
  if (!linked.length) return words;
  const known = parts.every((part) => values[part] !== undefined) ? [wordsOfThePast(words)] : [];
  return [...known, ...new Set(linked.map((part) => word("fromLink")(values.linked[part])))].join(" · ");
}

function element(tag, classes, ...children) {
  const made = document.createElement(tag);
  made.className = classes;
  made.append(...children);
  return made;
}
