/** What the panel says. Knows neither the page nor the DOM. */

import { blockAt } from "./scales.js";

const number = (value, digits) => String(Number(value.toPrecision(digits)));

export const wordsOfScale = (scale) => (scale === 0 ? "off" : number(scale, 4));

/** "block 12 of 24 (double 12)", "blocks 17–20 of 57 (double 17 – single 1)", "0.5 of the depth". */
export function wordsOfLayers({ start, end }, report) {
  if (start > end) return "layer_start is above layer_end";
  if (!report)
    return start === end ? `${number(start, 4)} of the depth` : `${number(start, 4)}–${number(end, 4)} of the depth`;
  const { block_count: count, block_names: names } = report;
  const [first, last] = [blockAt(start, count), blockAt(end, count)];
  if (first === last) return `block ${first} of ${count} (${names[first]})`;
  return `blocks ${first}–${last} of ${count} (${names[first]} – ${names[last]})`;
}

/** What hovering over a block says: how far its massive activations stand out. */
export function wordsOfHeat(block, report) {
  const name = `block ${block} (${report.block_names[block]})`;
  const ratio = report.peak_ratios[block];
  if (ratio === undefined) return `${name}: not measured`;
  return `${name}: its largest channel is ${number(ratio, 3)} times the median`;
}

/** What the last run did, in one line. */
export function wordsOfReport(report) {
  const channels = [...new Set(Object.values(report.channels).flat())].sort((a, b) => a - b);
  const shown = channels.length > 3 ? `${channels.slice(0, 2).join(", ")} …` : channels.join(", ");
  const kind = ["no channel", "channel"][channels.length] ?? "channels";
  return [`strength ${number(report.relative_strength, 2)}`, `${kind} ${shown}`.trim(), wordsOfSteps(report)].join(
    " · ",
  );
}

/** "20/20 steps", "20/20 steps, 7 computed". */
function wordsOfSteps({ steps, steps_fired: computed, steps_reused: reused }) {
  const guided = `${computed + reused}/${steps} steps`;
  return reused ? `${guided}, ${computed} computed` : guided;
}

/** What a calibration of the model found: "calibrated: block 8, 0.5", "calibrated: does not help". */
export function wordsOfPreset(preset, report) {
  if (preset.scale === 0) return `calibrated: ${preset.verdict}`;
  return `calibrated: block ${blockAt(preset.layer, report.block_count)}, ${number(preset.scale, 4)}`;
}

/** The same for who hovers over it. */
export function wordsOfPresetAtLength(preset) {
  const list = (values) =>
    Object.entries(values)
      .map(([name, value]) => `${name} ${value}`)
      .join(", ");
  const options = list(preset.options);
  return [preset.why, `Sampled: ${list(preset.sampling)}.`, ...(options ? [`With the options ${options}.`] : [])].join(
    "\n",
  );
}

/** What the last run did, for who hovers over it, with room to explain. */
export function wordsOfReportAtLength(report) {
  const channels = Object.entries(report.channels).map(
    ([block, found]) => `  block ${block}: ${found.join(", ") || "none"}`,
  );
  return [
    `${report.family}, ${report.block_count} blocks`,
    "Massive channels that were disrupted:",
    ...channels,
    `Guided: ${wordsOfSteps(report)}${report.steps_reused ? ", the others with the detail of the last one" : ""}`,
    `Relative strength: ${number(report.relative_strength, 3)} (the added detail as a share of the model's own step)`,
    `Plan: ${report.plan} (the extra rows ran ${report.plan === "together" ? "in the same forward" : "in a forward of their own"})`,
  ].join("\n");
}
