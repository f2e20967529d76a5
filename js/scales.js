/** Between values and places on the panel. Places are 0 (left) to 1 (right). Knows neither the page nor the DOM. */

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** The value without the noise of binary fractions, at most so many decimals. */
const round = (value, decimals) => Number(value.toFixed(decimals));

// The DG scale. The track has what is of use: 1 is too much on every model that was measured (docs/DEFAULTS.md). Places
// follow the square root, so that the default, 0.25, is in the middle. The ordinary widget goes further.

export const MOST = 1;

export const placeOfScale = (scale) => Math.sqrt(clamp(scale, 0, MOST) / MOST);

/** The scale at a place, at as many decimals as a pixel there can mean. */
export const scaleAt = (place) => round(MOST * clamp(place, 0, 1) ** 2, 2);

// The scale's curve over the guided part of the schedule.

/** Points [place, share] of a curve such as "0:0, 0.3:1", by the rules of detail_guidance/curve.py; none where the text is
 * empty or will be refused. */
export function curvePoints(text) {
  const written = String(text ?? "").split(",");
  if (!written.every((point) => /^\s*[\d.]+\s*:\s*[\d.]+\s*$/.test(point))) return [];
  const points = written.map((point) => point.split(":").map(Number));
  const rise = points.every(([place], at) => at === 0 || place > points[at - 1][0]);
  const within = points.flat().every((number) => number <= 1); // NaN is not
  return rise && within && points.some(([, share]) => share > 0) ? points : [];
}

/** The curve as SVG's points in a square of 1, from its left to its right; "" where there is none. */
export function curveLine(text) {
  const points = curvePoints(text);
  if (!points.length) return "";
  const whole = [[0, points[0][1]], ...points, [1, points.at(-1)[1]]];
  return whole.map(([place, share]) => `${round(place, 4)},${round(1 - share, 4)}`).join(" ");
}

// Layers. `blocks` is how many the model has, 0 where that is not known yet.

/** The block that a fraction of the depth names; the same rule as detail_guidance/layers.py. */
export const blockAt = (fraction, blocks) => clamp(Math.floor(fraction * blocks), 0, blocks - 1);

/** A fraction that names the block, in as few decimals as do: 0 for the first and 1 for the last, on every model. */
export function fractionOf(block, blocks) {
  if (block <= 0) return 0;
  if (block >= blocks - 1) return 1;
  const middle = (block + 0.5) / blocks;
  for (let decimals = 1; decimals < 4; decimals++) {
    const fraction = round(middle, decimals);
    if (blockAt(fraction, blocks) === block) return fraction;
  }
  return round(middle, 4);
}

/** Whether both ends name one layer. */
export const isSingle = ({ start, end }, blocks) =>
  blocks ? blockAt(start, blocks) === blockAt(end, blocks) : start === end;

/** How many steps the track of the layers has: the model's blocks, or hundredths of its depth. */
const unitsOf = (blocks) => blocks || 100;

/** The places between which the layers lie. Both blocks belong to them, so that one layer is as wide as its block. */
export function placesOfLayers({ start, end }, blocks) {
  if (!blocks) return [start, end];
  return [blockAt(start, blocks) / blocks, (blockAt(end, blocks) + 1) / blocks];
}

/** The layers after one end, "start" or "end", was dragged to a place; it stops at the other. */
export function layersDragged(layers, which, place, blocks) {
  const unit = Math.round(clamp(place, 0, 1) * unitsOf(blocks));
  return layersMovedTo(layers, which, blocks && which === "end" ? unit - 1 : unit, blocks);
}

/** The layers after both were dragged so that the first begins at a place; they stop at the track's ends. */
export function bothLayersDragged(layers, place, blocks) {
  const by = Math.round(place * unitsOf(blocks)) - unitOf(layers.start, blocks);
  return layersMoved(layers, "both", by, blocks);
}

/** The layers after one end, or "both", moved by so many steps. */
export function layersMoved(layers, which, by, blocks) {
  if (which !== "both") return layersMovedTo(layers, which, unitOf(layers[which], blocks) + by, blocks);
  const start = unitOf(layers.start, blocks);
  const end = Math.max(unitOf(layers.end, blocks), start);
  const shift = clamp(by, -start, lastUnit(blocks) - end);
  if (shift === 0) return layers;
  return { ...layers, start: fractionOfUnit(start + shift, blocks), end: fractionOfUnit(end + shift, blocks) };
}

const lastUnit = (blocks) => (blocks ? blocks - 1 : unitsOf(blocks));
const unitOf = (fraction, blocks) => (blocks ? blockAt(fraction, blocks) : Math.round(fraction * unitsOf(blocks)));
const fractionOfUnit = (unit, blocks) => (blocks ? fractionOf(unit, blocks) : round(unit / unitsOf(blocks), 2));

function layersMovedTo(layers, which, unit, blocks) {
  const other = which === "start" ? "end" : "start";
  const stop = unitOf(layers[other], blocks);
  const moved = which === "start" ? clamp(unit, 0, stop) : clamp(unit, stop, lastUnit(blocks));
  if (moved === unitOf(layers[which], blocks) && layers.start <= layers.end) return layers;
  // Many fractions name one block: where both ends meet, they must be the same one, or the first may exceed the last.
  return { ...layers, [which]: moved === stop ? layers[other] : fractionOfUnit(moved, blocks) };
}

// The heat strip.

/** How warm each block is, 0 to 1: the logarithm of its peak ratio (1: nothing stands out), null where not measured. */
export function warmths(peakRatios, blocks) {
  const logs = Array.from({ length: blocks }, (_, block) =>
    peakRatios[block] === undefined ? null : Math.log(Math.max(peakRatios[block], 1)),
  );
  const warmest = Math.max(...logs.map((log) => log ?? 0));
  return logs.map((log) => (log === null ? null : warmest > 0 ? log / warmest : 0));
}
