/** All that the pack touches of the page. Beside each stands its name in the API that the page is to have for packs
 * (`/comfy/api/v2.js`; docs/node-api of ComfyUI_frontend), so that one day this file alone changes. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const MODES = { 2: "muted", 4: "bypassed" }; // LiteGraph's, in which a node does not run

/** A node of the page. There is one handle for each: reloading, undoing and switching tabs make all nodes anew. */
class PageNode {
  #node;

  constructor(node) {
    this.#node = node;
  }

  get kind() {
    return this.#node.comfyClass; // node.comfyClass
  }

  get title() {
    return this.#node.title; // node.getTitle()
  }

  /** "muted", "bypassed", or "" where it runs. */
  get mode() {
    return MODES[this.#node.mode] ?? ""; // node.getMode()
  }

  /** The node that is now on the page by this one's id: itself, or one that has taken its place, or none. */
  get present() {
    const { graph, id } = this.#node;
    if (graph?.getNodeById(id) === this.#node) return this; // !node.isDeleted
    return handleOf(app.canvas.graph.getNodeById(id)); // comfy.graph.node(id)
  }

  valueOf(name) {
    return this.#widget(name).value; // node.widgets.get(name).getValue()
  }

  has(name) {
    return this.#widget(name) !== undefined;
  }

  /** Gives a widget a value that no user set. */
  preset(name, value) {
    this.#widget(name).value = value; // node.widgets.get(name).setValue(value)
  }

  /** Sets a widget as the user does. */
  set(name, value) {
    const widget = this.#widget(name);
    if (widget.value === value) return;
    widget.value = value; // the same: it tells others by itself
    widget.callback?.(value, app.canvas, this.#node);
    this.#node.setDirtyCanvas(true);
  }

  /** Calls a function each time the user sets a widget. */
  onSet(name, does) {
    const widget = this.#widget(name); // node.widgets.get(name).on("activate", does)
    const others = widget.callback;
    widget.callback = function (...given) {
      others?.apply(this, given);
      does();
    };
  }

  /** Title of the node that sets a widget, "" for a subgraph's input; undefined where the user does. */
  sourceOf(name) {
    const at = this.#node.inputs.findIndex((input) => input.widget?.name === name); // node.inputs.get(name).source()
    if (at < 0 || !this.#node.isInputConnected(at)) return undefined; // other packs' widgets may have no input
    return this.#node.getInputNode(at)?.title ?? "";
  }

  /** What the page calls an input: who renames it changes this. */
  labelOf(name) {
    const { label, localized_name } = this.#node.inputs.find((input) => input.name === name); // node.inputs.get(name).label
    return label ?? localized_name ?? name;
  }

  /** Calls a function with what the node put out, each time it has run. */
  onExecuted(does) {
    const others = this.#node.onExecuted; // comfy.defs.extend(kind, (builder) => builder.onExecuted(…))
    this.#node.onExecuted = function (output) {
      others?.apply(this, arguments);
      does(output ?? {});
    };
  }

  /** Puts an element below the node's widgets. It is neither saved nor sent. */
  mount(name, element, { least, fromAfar = false }) {
    const widget = this.#node.addDOMWidget(name, name, element, {
      serialize: false, // about the prompt; the one below is about the workflow
      margin: 6,
      hideOnZoom: !fromAfar,
      getMinHeight: () => least,
    }); // node.widgets.mount({ name, hideOnZoom, render: (container) => container.append(element) })
    widget.serialize = false;
  }

  /** Makes a new node so wide, and so much higher than it must be; a saved node's own size comes after this. */
  resize(width, higher) {
    this.#node.setSize([width, this.#node.computeSize()[1] + higher]); // node.setSizeConstraints({ minWidth, minHeight })
  }

  #widget(name) {
    return this.#node.widgets.find((widget) => widget.name === name); // node.widgets.get(name)
  }
}

const handles = new WeakMap();

function handleOf(node) {
  if (!node) return undefined;
  if (!handles.has(node)) handles.set(node, new PageNode(node));
  return handles.get(node);
}

/**
 * Makes the pack known to the page.
 *
 * @param {string} name
 * @param {object} does
 * @param {(locale: string) => void} does.begin before there are nodes; a change of the locale reloads the page.
 * @param {() => void} does.ready when the page stands.
 * @param {(node: PageNode) => void} does.created for each new node.
 * @param {() => void} does.loaded when a workflow's nodes stand.
 * @param {() => void} does.remembered when the page has other outputs of earlier runs.
 */
export function register(name, { begin, ready, created, loaded, remembered }) {
  app.registerExtension({
    name,
    init: () => begin(app.extensionManager?.setting.get("Comfy.Locale") ?? "en"), // comfy.settings
    setup: ready, // comfy.onReady(ready)
    nodeCreated: (node) => created(handleOf(node)), // comfy.defs.extend(kind, (builder) => builder.onCreated(…))
    afterConfigureGraph: loaded, // comfy.onWorkflowLoaded(loaded)
    onNodeOutputsUpdated: remembered,
  });
}

/** Calls a function with what the server sends under a name. */
export const onMessage = (name, does) => api.addEventListener(name, ({ detail }) => does(detail)); // comfy.backend.on

/** Calls a function once the server knows this page, and when it has come back: one that was restarted does not. */
export function onConnected(does) {
  does();
  if (!api.clientId) api.addEventListener("status", does, { once: true });
  api.addEventListener("reconnected", does);
}

/** What the server answers this page on a route, undefined where it has none. */
export async function ask(route) {
  const page = new URLSearchParams({ client_id: api.clientId ?? api.initialClientId ?? "" }); // comfy.backend.sessionId
  const answer = await api.fetchApi(`${route}?${page}`); // comfy.backend.fetch
  return answer.ok ? answer.json() : undefined;
}

/** Where a file is that a node put out. */
export const addressOf = (file) => api.apiURL(`/view?${new URLSearchParams(file)}`); // comfy.backend.url

/** A message that goes away. */
export const tell = (summary, detail) =>
  app.extensionManager.toast.add({ severity: "success", summary, detail, life: 8000 }); // comfy.commands.notify

const rootGraph = () => app.rootGraph ?? app.graph; // comfy.graph.root(); 1.32's page has only the latter

/** Which workflow is open. */
export const workflowId = () => rootGraph().id;

/** The node with an execution id such as "1:2:3": node 3 in subgraph node 2 in subgraph node 1 of the root graph. */
export function nodeAt(executionId) {
  const ids = String(executionId).split(":");
  const inner = ids.pop();
  const owner = ids.reduce((parent, id) => parent?.getNodeById(id)?.subgraph, rootGraph());
  return handleOf(owner?.getNodeById(inner)); // comfy.executionNode(executionId)
}

/** Every node of the workflow with what the page still knows of its last run. */
export function* outputs() {
  const root = rootGraph(); // comfy.graph.root(), comfy.graph.subgraphs()
  for (const graph of [root, ...(root?.subgraphs?.values() ?? [])]) {
    for (const node of graph?.nodes ?? []) {
      const output = app.nodeOutputs?.[graph === root ? node.id : `${graph.id}:${node.id}`];
      if (output) yield [handleOf(node), output];
    }
  }
}

/** Around changes that are undone at once. */
export const asOneChange = {
  begin: () => app.canvas.emitBeforeChange(), // comfy.graph.batch
  end: () => app.canvas.emitAfterChange(),
};

/** Lets through to the classic canvas what is not meant for an element that lies over it. */
export function letThrough(element, scrolls) {
  const toCanvas = (does) => (event) => {
    if (!window.LiteGraph.vueNodesMode) app.canvas[does](event); // Nodes 2.0 does so by itself
  };
  element.addEventListener("wheel", (event) => {
    // As the page's own text boxes: the wheel scrolls the one that has the focus.
    if (scrolls.contains(event.target) && scrolls.contains(document.activeElement)) event.stopPropagation();
    else toCanvas("processMouseWheel")(event);
  });
  const MIDDLE = 4; // in a pointer event's buttons
  const [down, move, up] = ["Down", "Move", "Up"].map((which) => toCanvas(`processMouse${which}`));
  element.addEventListener("pointerdown", (event) => event.button === 1 && down(event));
  element.addEventListener("pointermove", (event) => event.buttons & MIDDLE && move(event));
  element.addEventListener("pointerup", (event) => event.button === 1 && up(event));
}
