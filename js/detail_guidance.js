/** The pack's part of the page: a panel on the guidance nodes, whose ordinary widgets stay what is saved and run; two
 * pictures in one place; and seeds that stay, where a run measures. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { Comparer } from "./compare.js";
import { Panel } from "./panel.js";
import { keep, keepPreset, nodeAt, presetOf, reportsOf } from "./reports.js";
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
const MODES = { 2: "muted", 4: "bypassed" }; // LiteGraph's, in which a node does not run
const HEIGHT = 130; // the panel's least, with the margins that the classic canvas leaves around it
const ROOM = [330, 60]; // a new node's width, and what is below the panel's least: a warning need not be scrolled

const panels = new WeakMap();
const comparers = new WeakMap();
const rootGraph = () => app.rootGraph ?? app.graph; // 1.32's page has only the latter

app.registerExtension({
  name: "detail_guidance",

  init() {
    speak(app.extensionManager?.setting.get("Comfy.Locale") ?? "en"); // a change of it reloads the page
  },

  setup() {
    const style = document.createElement("link");
    style.rel = "stylesheet";
    style.href = new URL("./detail_guidance.css", import.meta.url);
    document.head.append(style);
    api.addEventListener("detail_guidance.report", ({ detail }) => {
      keep({ ...detail, workflow: detail.workflow ?? rootGraph().id });
      showReports();
    });
    api.addEventListener("detail_guidance.preset", ({ detail }) => keepPreset(detail));
    fetchKept();
    if (!api.clientId) api.addEventListener("status", fetchKept, { once: true });
    api.addEventListener("reconnected", fetchKept); // a server that was restarted does not know this page
  },

  nodeCreated(node) {
    if (NODES.includes(node.comfyClass)) addPanel(node);
    if (node.comfyClass === "DetailCompare") addComparer(node);
    if (SAVING.includes(node.comfyClass)) sayWhere(node);
    if (MEASURING.includes(node.comfyClass)) keepSeed(node);
  },

  // Reloading, undoing and switching tabs make all nodes anew.
  afterConfigureGraph() {
    showReports();
    showComparisons();
  },
  onNodeOutputsUpdated: showComparisons,
});

/** What there was before this page was loaded. A server that has not been restarted since an update has no such routes. */
async function fetchKept() {
  for (const [route, take] of [
    ["presets", keepPreset],
    ["reports", keep],
  ]) {
    const kept = await api.fetchApi(
      `/detail_guidance/${route}?${new URLSearchParams({ client_id: api.clientId ?? api.initialClientId ?? "" })}`,
    );
    if (kept.ok) (await kept.json()).forEach(take);
  }
  showReports();
}

function showReports() {
  for (const report of reportsOf(rootGraph().id)) {
    const node = nodeAt(rootGraph(), report.node);
    const panel = panels.get(node);
    if (!panel || panel.report === report) continue;
    panel.tell(report);
  }
}

/** Another seed at each run would measure it all again. A saved workflow's choice comes after this. */
function keepSeed(node) {
  const after = node.widgets.find(({ name }) => name === "control_after_generate");
  if (after) after.value = "fixed";
}

/** Calls a function with what the node put out, each time it has run. */
function onExecuted(node, does) {
  const others = node.onExecuted;
  node.onExecuted = function (output) {
    others?.apply(this, arguments);
    does(output ?? {});
  };
}

/** Where a file was saved. */
function sayWhere(node) {
  onExecuted(node, ({ text = [] }) => {
    app.extensionManager.toast.add({ severity: "success", summary: node.title, detail: text.join(" "), life: 8000 });
  });
}

function addComparer(node) {
  const comparer = new Comparer(() =>
    ["reference", "images"].map((name) => {
      const { label, localized_name } = node.inputs.find((input) => input.name === name);
      return label ?? localized_name ?? name; // as the page names the input: who renames it renames the side
    }),
  );
  comparers.set(node, comparer);
  const widget = node.addDOMWidget("detail_compare", "detail_compare", comparer.element, {
    serialize: false,
    margin: 6,
    hideOnZoom: false, // pictures are seen from afar, too
    getMinHeight: () => 160,
  });
  widget.serialize = false;
  onExecuted(node, (output) => compare(comparer, output));
  letThrough({ element: comparer.element, said: comparer.pair });
}

function compare(comparer, { detail_compare: [left, right] = [[], []] }) {
  const address = (file) => api.apiURL(`/view?${new URLSearchParams(file)}`);
  comparer.show(left.map(address), right.map(address));
}

/** What the page still knows of earlier runs. */
function showComparisons() {
  const root = rootGraph();
  for (const graph of [root, ...(root?.subgraphs?.values() ?? [])]) {
    for (const node of graph?.nodes ?? []) {
      const output = app.nodeOutputs?.[graph === root ? node.id : `${graph.id}:${node.id}`];
      if (comparers.has(node) && output) compare(comparers.get(node), output);
    }
  }
}

function addPanel(node) {
  const named = (name) => node.widgets.find((widget) => widget.name === name);
  const widget = (part) => named(WIDGETS[part]);
  /** Title of the node that sets a widget, "" for a subgraph's input; undefined where the user does. */
  const sourceOf = (name) => {
    const at = node.inputs.findIndex((input) => input.widget?.name === name);
    if (at < 0 || !node.isInputConnected(at)) return undefined; // other packs' widgets may have no input
    return node.getInputNode(at)?.title ?? "";
  };
  const parts = Object.keys(WIDGETS);
  const usual = widget("scale").value; // not yet that of a saved workflow
  letFollow(widget("start"), widget("end"));

  const panel = new Panel({
    read(ran = {}) {
      const sources = parts.map((part) => [part, sourceOf(WIDGETS[part])]);
      const linked = Object.fromEntries(sources.filter(([, title]) => title !== undefined));
      // A number may have been saved as text, or as null: it is what the host's own widget shows of it.
      const valueOf = (part) => (part in linked ? ran[WIDGETS[part]] : Number(widget(part).value));
      const values = Object.fromEntries(parts.map((part) => [part, valueOf(part)]));
      if (values.start > values.end) values.end = values.start; // as it runs
      const mode = MODES[node.mode] ?? "";
      return {
        ...values,
        usual,
        title: node.title,
        enabled: named("enabled").value || sourceOf("enabled") !== undefined,
        mode,
        // A model passes through a bypassed node; a guider is made by it.
        missing: mode === "muted" || (mode === "bypassed" && node.comfyClass === "DetailGuider"),
        changed: parts.some((part) => WIDGETS[part] in ran && values[part] !== ran[WIDGETS[part]]),
        linked,
      };
    },
    write(changed) {
      for (const part of parts) {
        const target = widget(part);
        if (changed[part] === undefined || changed[part] === target.value) continue;
        if (sourceOf(WIDGETS[part]) !== undefined) continue;
        target.value = changed[part];
        target.callback?.(changed[part], app.canvas, node);
      }
      node.setDirtyCanvas(true);
      panel.show();
    },
    begin: () => app.canvas.emitBeforeChange(),
    end: () => app.canvas.emitAfterChange(),
    presetOf,
  });
  panels.set(node, panel);

  const added = node.addDOMWidget("detail_guidance", "detail_guidance", panel.element, {
    serialize: false,
    margin: 6,
    getMinHeight: () => HEIGHT,
  });
  added.serialize = false; // the one above is about the prompt, this one about the workflow
  node.setSize([ROOM[0], node.computeSize()[1] + ROOM[1]]); // a saved node's own size comes after this
  keepUp(panel, node);
  letThrough(panel);
}

/** Keeps the first layer from lying above the last: the one that is set takes the other along. */
function letFollow(start, end) {
  for (const [set, other] of [
    [start, end],
    [end, start],
  ]) {
    const others = set.callback;
    set.callback = function (...given) {
      others?.apply(this, given);
      if (start.value > end.value) other.value = set.value;
    };
  }
}

/** The panel lies over the classic canvas: what is not meant for it goes on to there. */
function letThrough({ element, said }) {
  const toCanvas = (does) => (event) => {
    if (!window.LiteGraph.vueNodesMode) app.canvas[does](event);
  };
  element.addEventListener("wheel", (event) => {
    // As the page's own text boxes: the wheel scrolls the one that has the focus.
    if (said.contains(event.target) && said.contains(document.activeElement)) event.stopPropagation();
    else toCanvas("processMouseWheel")(event);
  });
  const MIDDLE = 4; // in a pointer event's buttons
  const [down, move, up] = ["Down", "Move", "Up"].map((which) => toCanvas(`processMouse${which}`));
  element.addEventListener("pointerdown", (event) => event.button === 1 && down(event));
  element.addEventListener("pointermove", (event) => event.buttons & MIDDLE && move(event));
  element.addEventListener("pointerup", (event) => event.button === 1 && up(event));
}

/** While the panel is in sight, keeps it like the ordinary widgets: links, undo, other packs and the user all change
 * them, and there is no one event for that. */
function keepUp(panel, node) {
  let frame;
  const look = () => {
    if (node.graph?.getNodeById(node.id) === node) panel.show();
    else handOver(panel, node);
    frame = requestAnimationFrame(look);
  };
  new IntersectionObserver((changes) => {
    cancelAnimationFrame(frame);
    if (changes.at(-1).isIntersecting) look();
  }).observe(panel.element);
}

/** Nodes 2.0 goes on showing the element of a node that undoing or loading has replaced by one with the same id. */
function handOver(panel, node) {
  const heir = panels.get(app.canvas.graph.getNodeById(node.id));
  if (heir && !heir.element.isConnected) panel.element.replaceWith(heir.element);
}
