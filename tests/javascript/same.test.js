import { same } from "../../js/same.js";

const VALUES = { scale: 0.25, title: "a", linked: new Set(["start"]), numbers: { cfg: 4 }, preset: undefined };
const copy = () => ({ ...VALUES, linked: new Set(VALUES.linked), numbers: { ...VALUES.numbers } });

test("equal values in other objects are the same", () => {
  expect(same(VALUES, copy())).toBe(true);
  expect(same({ scale: NaN }, { scale: NaN })).toBe(true);
});

test.each([
  { scale: 0.3 },
  { linked: new Set(["end"]) },
  { linked: new Set(["start", "end"]) },
  { numbers: { cfg: 5 } },
  { numbers: { cfg: 4, steps: 20 } },
  { preset: { layer: 0.7 } },
])("%o is another", (changed) => {
  expect(same(VALUES, { ...copy(), ...changed })).toBe(false);
});

test("nothing is not something", () => {
  expect(same(undefined, VALUES)).toBe(false);
  expect(same(VALUES, null)).toBe(false);
});

test("nothing is written down to be compared", () => {
  const stringify = vi.spyOn(JSON, "stringify");
  same(VALUES, copy());
  expect(stringify).not.toHaveBeenCalled();
});
