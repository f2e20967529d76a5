import { keep, keepPreset, presetOf, reportsOf } from "../../js/reports.js";

test("each node's last report is kept, by workflow, the newest last", () => {
  keep({ workflow: "a", node: "1", run: 1 });
  keep({ workflow: "a", node: "2", run: 2 });
  keep({ workflow: "a", node: "1", run: 3 });
  keep({ workflow: "b", node: "1", run: 4 });
  expect(reportsOf("a").map(({ run }) => run)).toEqual([2, 3]);
  expect(reportsOf("b").map(({ run }) => run)).toEqual([4]);
});

test("a preset is the model's own, or that of one that looks alike", () => {
  const report = { fingerprint: "ours", family: "Flux", block_count: 57 };
  expect(presetOf(undefined)).toBeUndefined();
  keepPreset({ fingerprint: "wide", family: "Flux", blocks: 8, scale: 1 });
  expect(presetOf(report)).toBeUndefined();
  keepPreset({ fingerprint: "theirs", family: "Flux", blocks: 57, scale: 2 });
  expect(presetOf(report).scale).toBe(2);
  keepPreset({ fingerprint: "ours", family: "Flux", blocks: 57, scale: 3 });
  keepPreset({ fingerprint: "ours", family: "Flux", blocks: 57, scale: 4 });
  expect(presetOf(report).scale).toBe(4);
});
