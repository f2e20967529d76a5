/** The pack's part of the page: a picture on the guidance nodes. The ordinary widgets stay what is saved and run. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { Picture } from "./picture.js";
import { keep, nodeAt, reportsOf } from "./reports.js";

const NODES = ["DetailGuider", "DetailGuidance"];
const WIDGETS = { scale: "dg_scale", start: "layer_start", end: "layer_end" };
const HEIGHT = 100;
const WARNINGS_HEIGHT = 48;

const pictures = new WeakMap();
const rootGraph = () => app.rootGraph ?? app.graph; // 1.32's page has only the latter

app.registerExtension({
  name: "detail_guidance",

  setup() {
    const style = document.createElement("link");
    style.rel = "stylesheet";
    style.href = new URL("./detail_guidance.css", import.meta.url);
    document.head.append(style);
    api.addEventListener("detail_guidance.report", ({ detail }) => {
      keep(detail);
      showReports();
    });
  },

  nodeCreated(node) {
    if (NODES.includes(node.comfyClass)) addPicture(node);
  },

  // Reloading, undoing and switching tabs make all nodes anew.
  afterConfigureGraph: showReports,
});

function showReports() {
  for (const report of reportsOf(rootGraph().id)) {
    const node = nodeAt(rootGraph(), report.node);
    const picture = pictures.get(node);
    if (!picture || picture.report === report) continue;
    picture.tell(report);
    node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])]);
    node.setDirtyCanvas(true, true);
  }
}

function addPicture(node) {
  const widget = (part) => node.widgets.find(({ name }) => name === WIDGETS[part]);
  const isLinked = (part) =>
    node.isInputConnected(node.inputs.findIndex((input) => input.widget?.name === WIDGETS[part]));
  const usual = widget("scale").value; // not yet that of a saved workflow

  const picture = new Picture({
    read: () => ({
      ...Object.fromEntries(Object.keys(WIDGETS).map((part) => [part, widget(part).value])),
      most: widget("scale").options.max,
      usual,
      linked: new Set(Object.keys(WIDGETS).filter(isLinked)),
    }),
    write(changed) {
      for (const part of Object.keys(WIDGETS)) {
        const target = widget(part);
        if (changed[part] === undefined || changed[part] === target.value) continue;
        target.value = changed[part];
        target.callback?.(changed[part], app.canvas, node);
      }
      node.setDirtyCanvas(true);
      picture.show();
    },
    begin: () => app.canvas.emitBeforeChange(),
    end: () => app.canvas.emitAfterChange(),
  });
  pictures.set(node, picture);

  const height = () => HEIGHT + (picture.report?.warnings.length ? WARNINGS_HEIGHT : 0);
  const added = node.addDOMWidget("detail_guidance", "detail_guidance", picture.element, {
    serialize: false,
    margin: 6,
    getMinHeight: height,
    getMaxHeight: height,
  });
  added.serialize = false; // the one above is about the prompt, this one about the workflow
  keepUp(picture, node);

  // Dragging the picture must not drag the node, nor may the picture stop the page from zooming.
  picture.element.addEventListener("pointerdown", (event) => event.stopPropagation());
  picture.element.addEventListener("wheel", (event) => {
    if (!window.LiteGraph.vueNodesMode) app.canvas.processMouseWheel(event);
  });
}

/** While the picture is in sight, keeps it like the ordinary widgets: links, undo, other packs and the user all change
 * them, and there is no one event for that. */
function keepUp(picture, node) {
  let inSight = false;
  const look = () => {
    if (!inSight) return;
    if (node.graph?.getNodeById(node.id) === node) picture.show();
    else handOver(picture, node);
    requestAnimationFrame(look);
  };
  new IntersectionObserver(([{ isIntersecting }]) => {
    const began = isIntersecting && !inSight;
    inSight = isIntersecting;
    if (began) look();
  }).observe(picture.element);
}

/** Nodes 2.0 goes on showing the element of a node that undoing or loading has replaced by one with the same id. */
function handOver(picture, node) {
  const heir = pictures.get(app.canvas.graph.getNodeById(node.id));
  if (heir && !heir.element.isConnected) picture.element.replaceWith(heir.element);
}
