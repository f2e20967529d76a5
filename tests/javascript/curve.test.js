import { curveLine, curvePoints } from "../../js/scales.js";

test("points of a curve", () => {
  expect(curvePoints("0:0, 0.3:1 ,1:0.5")).toEqual([
    [0, 0],
    [0.3, 1],
    [1, 0.5],
  ]);
});

test.each([
  "",
  undefined,
  "0.5",
  "0:1; 1:0",
  "0:",
  "0:1.5",
  "0.5:1, 0.5:0",
  "0:1:1",
  "0:0, 1:0",
  "1e-1:1",
  "0x1:1",
  "0:1.2.3",
])("%s has none", (text) => {
  expect(curvePoints(text)).toEqual([]);
  expect(curveLine(text)).toBe("");
});

test("its line goes from edge to edge, large shares above", () => {
  expect(curveLine("0.25:1, 0.5:0.2")).toBe("0,0 0.25,0 0.5,0.8 1,0.8");
});
