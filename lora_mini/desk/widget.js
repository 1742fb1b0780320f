// What both sliders share; it is put before either file.
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

