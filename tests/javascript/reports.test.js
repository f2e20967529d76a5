import { keep, nodeAt, reportsOf } from "../../js/reports.js";

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
