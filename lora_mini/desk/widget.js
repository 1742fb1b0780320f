// What all sliders share; it is put before each file.
const make = (tag, properties = {}, style = "") => {
  const node = Object.assign(document.createElement(tag), properties);
  node.style.cssText = style;
  // With this mark JupyterLab leaves the arrow keys to the node; with Ctrl or Cmd down it may have
  // the next key, or nobody could save.
  const keys = (event) => {
    if (event.ctrlKey || event.metaKey) delete node.dataset.lmSuppressShortcuts;
    else node.dataset.lmSuppressShortcuts = "";
  };
  for (const moment of ["keydown", "keyup", "blur"]) node.addEventListener(moment, keys);
  node.dataset.lmSuppressShortcuts = "";
  return node;
};
const lettered = (box, points) => { // in a room with a projector
  if (points) box.style.fontSize = `${points}pt`;
  return box;
};
// A slider with a few notches: [the whole head, the input]. move(k) is called with a notch.
const notched = (name, notches, move) => {
  const input = make("input", { type: "range", min: 0, max: notches.length - 1 },
    "width: 100%; margin: 0");
  input.setAttribute("aria-label", name);
  // beneath the slider, each under its place of the thumb, which is 16 pixels wide
  const stops = make("div", { ariaHidden: "true" },
    "display: flex; justify-content: space-between");
  stops.append(...notches.map((notch) => make("span", { textContent: notch },
    "width: 16px; display: flex; justify-content: center; white-space: nowrap")));
  const dial = make("div", {}, "flex: 1");
  dial.append(input, stops);
  const head = make("div", {}, "display: flex; gap: 1.5em; max-width: 30em; margin-bottom: 8px");
  head.append(make("span", { textContent: name, ariaHidden: "true" }), dial);
  input.oninput = () => move(Number(input.value));
  return [head, input];
};

