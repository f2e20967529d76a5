/** The last report of each node, and the presets of models. */

const latest = new Map();

export function keep(report) {
  const key = `${report.workflow} ${report.node}`;
  latest.delete(key); // so that it becomes the last one
  latest.set(key, report);
}

/** The kept reports about nodes of this workflow, oldest first: a node in a subgraph used twice has two. */
export const reportsOf = (workflow) => [...latest.values()].filter((report) => report.workflow === workflow);

const presets = new Map();

/** Of a model, in place of an earlier one. */
export const keepPreset = (preset) => presets.set(preset.fingerprint, { start_percent: 0, ...preset }); // a server of an older version does not say

/** What a calibration found for the model that a report is about; that of another model where only such look alike. */
export function presetOf(report) {
  if (!report?.fingerprint) return undefined;
  const alike = [...presets.values()].filter(
    ({ family, blocks }) => family === report.family && blocks === report.block_count,
  );
  return presets.get(report.fingerprint) ?? alike[0];
}
