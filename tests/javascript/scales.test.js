import {
  MOST,
  blockAt,
  bothLayersDragged,
  fractionOf,
  isSingle,
  layersDragged,
  layersMoved,
  placeOfScale,
  placesOfLayers,
  scaleAt,
  warmths,
} from "../../js/scales.js";

const DEPTHS = [1, 2, 3, 4, 12, 24, 28, 38, 57, 60, 100, 199];
const blocksOf = (depth) => Array.from({ length: depth }, (_, block) => block);

describe("the DG scale", () => {
  test("runs from off to the most over the whole track, the default in the middle", () => {
    expect(scaleAt(0)).toBe(0);
    expect(scaleAt(0.5)).toBe(0.25);
    expect(scaleAt(1)).toBe(MOST);
    expect(placeOfScale(0)).toBe(0);
    expect(placeOfScale(MOST)).toBe(1);
  });

  test("stays on the track", () => {
    expect(scaleAt(-0.3)).toBe(0);
    expect(scaleAt(1.3)).toBe(MOST);
    expect(placeOfScale(20)).toBe(1);
  });

  test.each([0, 0.01, 0.05, 0.25, 0.99, 1])("%d is where its place says", (scale) => {
    expect(scaleAt(placeOfScale(scale))).toBe(scale);
  });

  test("the track is for pictures: 0.1 to 0.6 are more than two fifths of it, what is above less than a quarter", () => {
    expect(placeOfScale(0.6) - placeOfScale(0.1)).toBeGreaterThan(0.4);
    expect(1 - placeOfScale(0.6)).toBeLessThan(0.25);
  });

  test("has steps of at most 0.02 on a track of 120 pixels", () => {
    const scales = Array.from({ length: 121 }, (_, pixel) => scaleAt(pixel / 120));
    const gaps = scales.slice(1).map((scale, index) => scale - scales[index]);
    expect(Math.max(...gaps)).toBeLessThan(0.021);
    expect(Math.min(...gaps)).toBeGreaterThanOrEqual(0);
  });
});

describe("layers", () => {
  test.each(DEPTHS)("each of %d blocks has a fraction that names it", (depth) => {
    for (const block of blocksOf(depth)) expect(blockAt(fractionOf(block, depth), depth)).toBe(block);
  });

  test("the first and the last block are 0 and 1 on every model", () => {
    for (const depth of DEPTHS.slice(1)) {
      expect(fractionOf(0, depth)).toBe(0);
      expect(fractionOf(depth - 1, depth)).toBe(1);
    }
  });

  test("fractions are as short as they can be", () => {
    expect(fractionOf(12, 24)).toBe(0.5);
    expect(fractionOf(1, 4)).toBe(0.4);
    expect(String(fractionOf(20, 57)).length).toBeLessThanOrEqual(4);
  });

  test("a single layer is as wide as its block", () => {
    expect(placesOfLayers({ start: 0.5, end: 0.5 }, 4)).toEqual([0.5, 0.75]);
    expect(placesOfLayers({ start: 0, end: 1 }, 4)).toEqual([0, 1]);
    expect(placesOfLayers({ start: 0.2, end: 0.7 }, 0)).toEqual([0.2, 0.7]);
  });

  test.each(DEPTHS)("dragging an end to where it stands changes no block (%d blocks)", (depth) => {
    for (const block of blocksOf(depth)) {
      const layers = { start: fractionOf(block, depth), end: fractionOf(block, depth) };
      const [left, right] = placesOfLayers(layers, depth);
      expect(layersDragged(layers, "start", left, depth)).toEqual(layers);
      expect(layersDragged(layers, "end", right, depth)).toEqual(layers);
    }
  });

  test("an end stops at the other one", () => {
    const layers = { start: 0.4, end: 0.6 };
    expect(layersDragged(layers, "start", 0.9, 0)).toEqual({ start: 0.6, end: 0.6 });
    expect(layersDragged(layers, "end", 0.1, 0)).toEqual({ start: 0.4, end: 0.4 });
    expect(layersDragged({ start: 0, end: 0 }, "end", 1, 4)).toEqual({ start: 0, end: 1 });
    expect(layersDragged({ start: 0, end: 1 }, "start", 7, 4)).toEqual({ start: 1, end: 1 });
  });

  test("moves by one block, before a run by a hundredth", () => {
    expect(layersMoved({ start: 0.5, end: 0.5 }, "end", 1, 4)).toEqual({ start: 0.5, end: 1 });
    expect(layersMoved({ start: 0.29, end: 0.57 }, "start", 1, 0)).toEqual({ start: 0.3, end: 0.57 });
    expect(layersMoved({ start: 0.5, end: 0.5 }, "start", -Infinity, 24)).toEqual({ start: 0, end: 0.5 });
    expect(layersMoved({ start: 0.5, end: 0.5 }, "end", Infinity, 24)).toEqual({ start: 0.5, end: 1 });
  });

  test.each(DEPTHS)("the first never passes the last, whatever stood there and is done (%d blocks)", (depth) => {
    const fractions = Array.from({ length: 21 }, (_, index) => index / 20 + (index % 3) / 300).map((f) =>
      Math.min(f, 1),
    );
    for (const blocks of [0, depth])
      for (const start of fractions)
        for (const end of fractions.filter((fraction) => fraction >= start))
          for (const layers of [
            ...[-Infinity, -1, 1, 3, Infinity].flatMap((by) =>
              ["start", "end", "both"].map((which) => layersMoved({ start, end }, which, by, blocks)),
            ),
            ...[0, 0.31, 0.5, 1].flatMap((place) => [
              layersDragged({ start, end }, "start", place, blocks),
              layersDragged({ start, end }, "end", place, blocks),
              bothLayersDragged({ start, end }, place, blocks),
            ]),
          ]) {
            expect(layers.start).toBeLessThanOrEqual(layers.end);
            expect(layers.start).toBeGreaterThanOrEqual(0);
            expect(layers.end).toBeLessThanOrEqual(1);
          }
  });

  test("a single layer is one block, or one fraction while blocks are unknown", () => {
    expect(isSingle({ start: 0.65, end: 0.69 }, 10)).toBe(true);
    expect(isSingle({ start: 0.65, end: 0.69 }, 0)).toBe(false);
    expect(isSingle({ start: 0.65, end: 0.7 }, 10)).toBe(false);
  });

  test("an end that stays in its block keeps its fraction", () => {
    expect(layersDragged({ start: 0.123, end: 0.123 }, "start", 0.1234, 57)).toEqual({ start: 0.123, end: 0.123 });
    expect(layersMoved({ start: 0.123, end: 0.123 }, "both", 0, 57)).toEqual({ start: 0.123, end: 0.123 });
  });

  test("ends in the wrong order are put right by moving one", () => {
    expect(layersMoved({ start: 0.6, end: 0.5 }, "end", 1, 0)).toEqual({ start: 0.6, end: 0.6 });
    expect(layersMoved({ start: 0.56, end: 0.55 }, "start", 1, 24)).toEqual({ start: 0.55, end: 0.55 });
  });

  test("both move together and keep their distance at the ends", () => {
    expect(layersMoved({ start: 0.2, end: 0.3 }, "both", 40, 0)).toEqual({ start: 0.6, end: 0.7 });
    expect(layersMoved({ start: 0.2, end: 0.3 }, "both", Infinity, 0)).toEqual({ start: 0.9, end: 1 });
    const blocks = ({ start, end }) => [blockAt(start, 24), blockAt(end, 24)];
    expect(blocks(layersMoved({ start: 0.5, end: 0.6 }, "both", -Infinity, 24))).toEqual([0, 2]);
    expect(blocks(layersMoved({ start: 0.5, end: 0.6 }, "both", 3, 24))).toEqual([15, 17]);
  });
});

describe("the heat strip", () => {
  test("is logarithmic from nothing stands out to what stands out most", () => {
    expect(warmths({ 0: 1, 1: 10, 2: 100 }, 3)).toEqual([0, expect.closeTo(0.5), 1]);
  });

  test("tells not measured from cold", () => {
    expect(warmths({ 1: 1 }, 3)).toEqual([null, 0, null]);
  });
});
