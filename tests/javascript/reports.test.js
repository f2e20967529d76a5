import { keep, keepPreset, nodeAt, presetOf, reportsOf } from "../../js/reports.js";

const graph = (nodes) => ({ getNodeById: (id) => nodes[id] });

test("an execution id leads through subgraphs", () => {
  const inner = { name: "inner" };
  const root = graph({ 7: { name: "outer" }, 1: { subgraph: graph({ 2: { subgraph: graph({ 3: inner }) } }) } });
  expect(nodeAt(root, "7").name).toBe("outer");
  expect(nodeAt(root, "1:2:3")).toBe(inner);
});

test("a node that is gone is undefined", () => {
  const root = graph({ 1: { subgraph: graph({}) }, 4: {} });
  for (const id of ["9", "1:2", "9:2", "4:1", "1:2:3"]) expect(nodeAt(root, id)).toBeUndefined();
});

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
