/** The pack's part of the page: a panel on the guidance nodes, whose ordinary widgets stay what is saved and run; two
 * pictures in one place; pairs to choose from; and seeds that stay, where a run measures. */

import { BlindChoice } from "./blind.js";
import { Comparer } from "./compare.js";
import {
  addressOf,
  ask,
  asOneChange,
  letThrough,
  nodeAt,
  onConnected,
  onMessage,
  outputs,
  register,
  tell,
  workflowId,
} from "./page.js";
import { Panel } from "./panel.js";
import { keep, keepPreset, presetOf, reportsOf } from "./reports.js";
import { speak } from "./words.js";

const NODES = ["DetailGuider", "DetailGuidance"];
const MEASURING = [
  "MassiveActivationProbe",
  "MassiveActivationMap",
  "DetailGuidanceCalibrate",
  "DiTFeatures",
  "PromptWordMask",
];
const SAVING = ["SaveMassiveActivationProfile", "SaveDiTFeatures"];
const WIDGETS = {
  scale: "dg_scale",
  start: "layer_start",
  end: "layer_end",
  from: "start_percent",
  to: "end_percent",
};
const AFTER = "control_after_generate";
const PARTS = Object.keys(WIDGETS);
// What few change on the node itself, and what it is by default.
const OFTEN_CHANGED = { scale_is: "w", every: 1, path: "positive", perturbation: "massive channels", curve: "" };
const HEIGHT = 130; // the panel's least, with the margins that the classic canvas leaves around it
const ROOM = [330, 60]; // a new node's width, and what is below the panel's least: a warning need not be scrolled
const ROOM_OF_A_PAIR = [640, 160];

const panels = new WeakMap();
const comparers = new WeakMap();
const blinds = new WeakMap();

register("detail_guidance", {
  begin: speak,
  ready() {
    const style = document.createElement("link");
    style.rel = "stylesheet";
    style.href = new URL("./detail_guidance.css", import.meta.url);
    document.head.append(style);
    onMessage("detail_guidance.report", (report) => {
      keep({ ...report, workflow: report.workflow ?? workflowId() });
      showReports();
    });
    onMessage("detail_guidance.preset", keepPreset);
    onConnected(fetchKept);
  },
  created(node) {
    if (NODES.includes(node.kind)) addPanel(node);
    if (node.kind === "DetailCompare") addComparer(node);
    if (node.kind === "DetailBlindChoice") addBlind(node);
    if (SAVING.includes(node.kind)) node.onExecuted(({ text = [] }) => tell(node.title, text.join(" ")));
    // Another seed at each run would measure it all again. A saved workflow's choice comes after this.
    if (MEASURING.includes(node.kind) && node.has(AFTER)) node.preset(AFTER, "fixed");
  },
  loaded() {
    showReports();
    showPictures();
  },
  remembered: showPictures,
});

/** What there was before this page was loaded. A server that has not been restarted since an update has no such routes. */
async function fetchKept() {
  for (const [route, take] of [
    ["presets", keepPreset],
    ["reports", keep],
  ]) {
    ((await ask(`/detail_guidance/${route}`)) ?? []).forEach(take);
  }
  showReports();
}

function showReports() {
  for (const report of reportsOf(workflowId())) {
    const panel = panels.get(nodeAt(report.node));
    if (!panel || panel.report === report) continue;
    panel.tell(report);
  }
}

function addComparer(node) {
  const comparer = new Comparer(() => ["reference", "images"].map((name) => node.labelOf(name)));
  comparers.set(node, comparer);
  node.mount("detail_compare", comparer.element, { least: 160, fromAfar: true });
  node.onExecuted((output) => compare(comparer, output));
  letThrough(comparer.element, comparer.pair);
}

function compare(comparer, { detail_compare: [left, right] = [[], []] }) {
  comparer.show(left.map(addressOf), right.map(addressOf));
}

function addBlind(node) {
  const blind = new BlindChoice({
    read: () => ({ choices: node.valueOf("choices"), source: node.sourceOf("choices") }),
    write(choices) {
      asOneChange.begin();
      node.set("choices", choices);
      asOneChange.end();
    },
  });
  blinds.set(node, blind);
  node.mount("detail_blind_choice", blind.element, { least: 200, fromAfar: true });
  node.resize(...ROOM_OF_A_PAIR);
  node.onExecuted((output) => offer(blind, output));
  keepUp(blind, node, blinds);
  letThrough(blind.element, blind.pair);
}

function offer(blind, { detail_blind_choice: [ran] = [] }) {
  if (ran) blind.tell({ ...ran, pairs: ran.pairs.map((files) => files.map(addressOf)) });
}

function showPictures() {
  for (const [node, output] of outputs()) {
    if (comparers.has(node)) compare(comparers.get(node), output);
    if (blinds.has(node)) offer(blinds.get(node), output);
  }
}

function addPanel(node) {
  const sourceOf = (part) => node.sourceOf(WIDGETS[part]);
  const usual = node.valueOf(WIDGETS.scale); // not yet that of a saved workflow
  letFollow(node);

  const panel = new Panel({
    read(ran = {}) {
      const sources = PARTS.map((part) => [part, sourceOf(part)]);
      const linked = Object.fromEntries(sources.filter(([, title]) => title !== undefined));
      // A number may have been saved as text, or as null: it is what the host's own widget shows of it.
      const valueOf = (part) => (part in linked ? ran[WIDGETS[part]] : Number(node.valueOf(WIDGETS[part])));
      const values = Object.fromEntries(PARTS.map((part) => [part, valueOf(part)]));
      if (values.start > values.end) values.end = values.start; // as it runs
      const { mode } = node;
      return {
        ...values,
        usual,
        title: node.title,
        enabled: node.valueOf("enabled") || node.sourceOf("enabled") !== undefined,
        mode,
        // A model passes through a bypassed node; a guider is made by it.
        missing: mode === "muted" || (mode === "bypassed" && node.kind === "DetailGuider"),
        changed: PARTS.some((part) => WIDGETS[part] in ran && values[part] !== ran[WIDGETS[part]]),
        linked,
        changedOptions: changedOptions(node),
        curve: changedOptions(node).curve ?? "",
      };
    },
    write(changed) {
      for (const part of PARTS) {
        if (changed[part] !== undefined && sourceOf(part) === undefined) node.set(WIDGETS[part], changed[part]);
      }
      panel.show();
    },
    ...asOneChange,
    presetOf,
  });
  panels.set(node, panel);
  node.mount("detail_guidance", panel.element, { least: HEIGHT });
  node.resize(...ROOM);
  keepUp(panel, node, panels);
  letThrough(panel.element, panel.said);
}

/** Options that the node itself says otherwise than they are by default, as text; "from a link" is no option's value. */
function changedOptions(node) {
  const there = Object.keys(OFTEN_CHANGED).filter((name) => node.has(name)); // not on a server of an older version
  const said = there.map((name) => [name, node.sourceOf(name) === undefined ? node.valueOf(name) : "from a link"]);
  const changed = said.filter(([name, value]) => value !== OFTEN_CHANGED[name]);
  return Object.fromEntries(changed.map(([name, value]) => [name, String(value)]));
}

/** Keeps the first layer from lying above the last: the one that is set takes the other along. */
function letFollow(node) {
  const { start, end } = WIDGETS;
  for (const [set, other] of [
    [start, end],
    [end, start],
  ]) {
    node.onSet(set, () => {
      if (node.valueOf(start) > node.valueOf(end)) node.preset(other, node.valueOf(set));
    });
  }
}

/** While a panel is in sight, keeps it like the ordinary widgets: links, undo, other packs and the user all change
 * them, and there is no one event for that. `all`: the panels of its kind, by node. */
function keepUp(panel, node, all) {
  let frame;
  const look = () => {
    const { present } = node;
    if (present === node) panel.show();
    else handOver(panel, all.get(present));
    frame = requestAnimationFrame(look);
  };
  new IntersectionObserver((changes) => {
    cancelAnimationFrame(frame);
    if (changes.at(-1).isIntersecting) look();
  }).observe(panel.element);
}

/** Nodes 2.0 goes on showing the element of a node that undoing or loading has replaced by one with the same id. */
function handOver(panel, heir) {
  if (heir && !heir.element.isConnected) panel.element.replaceWith(heir.element);
}
