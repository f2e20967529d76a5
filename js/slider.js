/**
 * Lets the pointer drag an element along a track.
 *
 * @param {HTMLElement} handle its `data-place` is where on the track it stands, 0 to 1.
 * @param {object} does
 * @param {(place: number) => void} does.drag goes to a place on the track.
 * @param {(event: PointerEvent) => number} does.placeOf the place on the track where a pointer is.
 * @param {() => void} does.begin before a change that the user sees as one, to be undone at once.
 * @param {() => void} does.end after it.
 */
export function makeDraggable(handle, { drag, placeOf, begin, end }) {
  handle.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || isDisabled(handle)) return;
    event.stopPropagation(); // Nodes 2.0 would drag the node
    // Where on the handle it was grabbed stays under the pointer.
    const grip = placeOf(event) - Number(handle.dataset.place);
    const dragTo = (moved) => drag(placeOf(moved) - grip);
    const stop = ({ pointerId }) => {
      if (pointerId !== event.pointerId) return;
      handle.removeEventListener("pointermove", dragTo);
      document.removeEventListener("lostpointercapture", stop, true);
      end();
    };
    begin();
    handle.setPointerCapture(event.pointerId);
    handle.addEventListener("pointermove", dragTo);
    document.addEventListener("lostpointercapture", stop, true); // there it arrives also if the handle is removed
  });
}

/**
 * Makes an element a slider for pointer, keyboard and assistive technology (ARIA's slider pattern).
 *
 * @param {HTMLElement} handle as in `makeDraggable`.
 * @param {object} does as there, and
 * @param {(steps: number, event: KeyboardEvent) => void} does.move moves by so many steps, infinite ones to the end.
 * @param {() => void} [does.reset] on double-click.
 */
export function makeSlider(handle, { move, reset, ...does }) {
  const changing = (change) => {
    does.begin();
    change();
    does.end();
  };
  makeDraggable(handle, does);
  handle.setAttribute("role", "slider");
  let held = false;
  handle.addEventListener("keydown", (event) => {
    if (event.key === "Delete" || event.key === "Backspace") event.stopPropagation(); // the page would delete the node
    const steps = STEPS[event.key];
    if (steps === undefined || event.ctrlKey || event.metaKey || event.altKey || isDisabled(handle)) return;
    event.preventDefault();
    event.stopPropagation(); // the page moves nodes by the same keys
    held = event.repeat;
    if (held) move(steps, event);
    else changing(() => move(steps, event));
  });
  handle.addEventListener("keyup", () => {
    if (held) changing(() => {}); // all that a held key did is undone at once
    held = false;
  });
  if (!reset) return;
  handle.addEventListener("dblclick", () => {
    if (!isDisabled(handle)) changing(reset);
  });
}

const STEPS = {
  ArrowLeft: -1,
  ArrowDown: -1,
  ArrowRight: 1,
  ArrowUp: 1,
  PageDown: -10,
  PageUp: 10,
  Home: -Infinity,
  End: Infinity,
};

/** Shows a slider's state; `place` is where on its track the handle stands, 0 to 1. */
export function showSlider(handle, { place, label, low, high, value, words, disabled }) {
  handle.dataset.place = place;
  handle.tabIndex = disabled ? -1 : 0;
  const aria = { label, valuemin: low, valuemax: high, valuenow: value, valuetext: words, disabled };
  for (const [name, content] of Object.entries(aria)) handle.setAttribute(`aria-${name}`, content);
}

const isDisabled = (handle) => handle.getAttribute("aria-disabled") === "true";
