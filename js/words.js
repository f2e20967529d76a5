/** What the panel says. Knows neither the page nor the DOM. */

import { wordsIn } from "./languages.js";
import { blockAt } from "./scales.js";

// Limits of the relative strength.
const WEAK = 0.05;
const USUAL = 0.25;

const PLANS = {
  together: "the extra rows ran in the same forward",
  "in turn": "the extra rows ran in a forward of their own",
};

const number = (value, digits) => String(Number(value.toPrecision(digits)));

let say = wordsIn("en");

/** From now on in a locale's language. */
export function speak(locale) {
  say = wordsIn(locale);
}

/** A word of the panel's that stands alone. */
export const word = (name) => say[name];

export const wordsOfScale = (scale) => (scale === 0 ? say.off : number(scale, 4));

/** "block 12 of 24 (double 12)", "blocks 17–20 of 57 (double 17 – single 1)", "0.5 of the depth". */
export function wordsOfLayers({ start, end }, report) {
  if (!report) return say.ofDepth(start === end ? number(start, 4) : `${number(start, 4)}–${number(end, 4)}`);
  const { block_count: count, block_names: names } = report;
  const [first, last] = [blockAt(start, count), blockAt(end, count)];
  if (first === last) return say.block(first, count, names[first]);
  return say.blocks(first, last, count, names[first], names[last]);
}

/** What hovering over a block says: how far its massive activations stand out. */
export function wordsOfHeat(block, report) {
  const ratio = report.peak_ratios[block];
  const what = ratio === undefined ? say.notMeasured : say.standsOut(number(ratio, 3));
  return say.stated(block, report.block_names[block], what);
}

/** What the last run did, in one line. */
export function wordsOfReport(report) {
  const channels = [...new Set(Object.values(report.channels).flat())].sort((a, b) => a - b);
  const shown = channels.length > 3 ? `${channels.slice(0, 2).join(", ")} …` : channels.join(", ");
  const what = ofChannels(report) ? say.channels(shown, channels.length) : report.perturbation;
  return [wordsOfStrength(report), what, wordsOfSteps(report)].join(" · ");
}

/** Whether it was channels that were disrupted. */
const ofChannels = ({ perturbation = "massive channels" }) => perturbation.startsWith("massive channels");

/** "strength 0.12 (usual)"; "in the negative, 88 % kept" where no second prediction says how strong the detail is. */
function wordsOfStrength({ relative_strength: strength, kept_of_negative: kept }) {
  if (kept != null) return say.ofNegative(Math.round(100 * kept));
  return say.strength(number(strength, 2), say[zoneOf(strength)]);
}

/** "where: bear 12 %, grass 30 %": of each word the share of the pictures that its mask covers. */
export function wordsOfCovered({ covered = {} }) {
  const list = Object.entries(covered).map(([name, share]) => `${name} ${Math.round(100 * share)} %`);
  return list.length ? say.where(list.join(", ")) : "";
}

/** How much a strength is; docs/DEFAULTS.md says where the limits are from. */
export function zoneOf(strength) {
  if (strength < WEAK) return "weak";
  return strength <= USUAL ? "usual" : "strong";
}

/** "20/20 steps", "20/20 steps, 7 computed". */
function wordsOfSteps({ steps, steps_fired: computed, steps_reused: reused }) {
  const guided = say.steps(computed + reused, steps);
  return reused ? say.computed(guided, computed) : guided;
}

/** That a report is of values, or of a state, that the node no longer has. */
export function wordsOfThePast(words, state) {
  return (state ? `${state} · ` : "") + say.lastRun(words);
}

/** Whether reference pictures have judged that a preset helps: only such are advice. */
export const isAdvice = (preset) => preset.verdict === "helps";

/** What a calibration of the model found: "best at cfg 4: block 8, 0.5 from 67 %"; a note where that is no advice:
 * "calibrated: does not help", "not judged: layout kept up to block 8, 0.5 (cfg 4)". */
export function wordsOfPreset(preset, report) {
  if (preset.fingerprint !== report.fingerprint) return say.ofAnother;
  if (preset.scale === 0) return say.calibratedWithout(say.verdicts[preset.verdict] ?? preset.verdict);
  const from = preset.start_percent > 0 ? say.from(Math.round(100 * preset.start_percent)) : "";
  const found = [blockAt(preset.layer, report.block_count), number(preset.scale, 4) + from, preset.sampling.cfg];
  return isAdvice(preset) ? say.calibrated(...found) : say.keepsLayout(...found);
}

/** The same for who hovers over it. */
export function wordsOfPresetAtLength(preset, report) {
  if (preset.fingerprint !== report.fingerprint) return say.ofAnotherAtLength(preset.fingerprint, report.fingerprint);
  const list = (values) =>
    Object.entries(values)
      .map(([name, value]) => `${name} ${value}`)
      .join(", ");
  const options = list(preset.options);
  return [
    preset.why,
    `Sampled: ${list(preset.sampling)}.`,
    `With ${options || "scale_is w and the other options as they are by default"}: set the same on this node to use it.`,
  ].join("\n");
}

/** What the last run did, for who hovers over it, with room to explain. */
export function wordsOfReportAtLength(report) {
  const channels = Object.entries(report.channels).map(
    ([block, found]) => `  block ${block}: ${found.join(", ") || "none"}`,
  );
  return [
    `${report.family}, ${report.block_count} blocks`,
    ...(ofChannels(report)
      ? ["Massive channels that were disrupted:", ...channels]
      : [`Disrupted: ${report.perturbation}`]),
    `Guided: ${wordsOfSteps(report)}${report.steps_reused ? ", the others with the detail of the last one" : ""}`,
    ...(report.plan in PLANS
      ? [
          `Relative strength: ${number(report.relative_strength, 3)} (the added detail as a share of the model's own step)`,
        ]
      : []),
    ...[wordsOfCovered(report)].filter(Boolean),
    `Plan: ${report.plan} (${PLANS[report.plan] ?? "the negative's own prediction is disrupted, at no cost"})`,
  ].join("\n");
}
