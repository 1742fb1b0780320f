// The browser's half of CurveSlider. All curves are here from the start, so a move draws the small
// picture anew, some hundred shapes, and sends no message.
const MARKS = { // of matplotlib's names, 8 wide
  "o": "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0Z", "s": "M-3-3H3V3H-3Z",
  "^": "M0-4.5L4 3H-4Z", "D": "M0-4.5L4.5 0L0 4.5L-4.5 0Z", "v": "M0 4.5L4-3H-4Z",
  "p": "M0-4.5L4.3-1.4L2.6 3.6H-2.6L-4.3-1.4Z",
};
const [WIDTH, HEIGHT, TOP, BOTTOM, LETTER, LINE] = [620, 300, 26, 38, 7, 15];

// Moves heights apart so that labels of one LINE each do not overlap; their order stays.
const spread = (heights) => {
  const order = heights.map((_, i) => i).sort((a, b) => heights[a] - heights[b]);
  const free = [...heights];
  order.forEach((i, k) => {
    if (k) free[i] = Math.max(free[i], free[order[k - 1]] + LINE);
  });
  let limit = HEIGHT - BOTTOM;
  for (const i of order.reverse()) {
    free[i] = Math.min(free[i], limit);
    limit = free[i] - LINE;
  }
  return free;
};
const widest = (labels) => LETTER * Math.max(0, ...labels.map((label) => label.length));

export default {
  render({ model, el }) {
    const plot = model.get("plot");
    const { x, notches, ticks } = plot;
    const last = x.length - 1;
    const styles = [...plot.curve_styles, ...plot.line_styles];
    const axis = 48; // right of y's numbers; then the notches, then x begins
    const left = axis + widest(notches) + 14;
    const right = WIDTH - 48 - widest(styles.map((style) => style.label));
    const share = (v, from, to) => Math.log(v / from) / Math.log(to / from);
    const across = (v) => left + (right - left) * share(v, x[0], x[last]);
    const floor = HEIGHT - BOTTOM;
    const down = (v) => floor - (floor - TOP) * share(v, ticks[0], ticks.at(-1));

    const shape = (tag, attributes, ...inside) => {
      const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const name in attributes) node.setAttribute(name, attributes[name]);
      node.append(...inside);
      return node;
    };
    const path = (d, attributes) => shape("path", { d, fill: "none", ...attributes });
    const text = (words, x, y, attributes = {}) =>
      shape("text", { x, y, fill: "currentColor", ...attributes }, words);
    const joined = (curve) => { // a line through the means; where one is missing, a gap
      let pen = "M";
      return curve.mean.map((y, i) => {
        const step = y === null ? "" : `${pen}${across(x[i])} ${down(y)}`;
        pen = y === null ? "M" : "L";
        return step;
      }).join("");
    };
    const mark = (style, at, y) =>
      path(MARKS[style.mark], { fill: style.colour, transform: `translate(${at} ${y})` });

    const rules = shape("g", { stroke: "currentColor" });
    const names = shape("g", {});
    for (const v of ticks) {
      rules.append(path(`M${left} ${down(v)}H${right}`, { opacity: 0.15 }));
      names.append(text(String(v), axis - 6, down(v) + 4, { "text-anchor": "end" }));
    }
    for (const v of x) {
      rules.append(path(`M${across(v)} ${floor}v4`, {}));
      names.append(text(String(v), across(v), floor + 16, { "text-anchor": "middle" }));
    }
    rules.append(path(`M${axis} ${TOP}V${floor}H${right}`, { opacity: 0.6 }));
    names.append(text(plot.ylabel, 4, 11),
      text(plot.xlabel, (left + right) / 2, HEIGHT - 5, { "text-anchor": "middle" }));

    const drawn = (notch) => {
      const [curves, lines] = [plot.curves[notch], plot.lines[notch]];
      const parts = plot.curves.filter((_, k) => k !== notch).map((ghost) => path(joined(ghost[0]),
        { stroke: "currentColor", opacity: 0.4, class: "ghost" }));
      const ends = []; // where each curve and line ends, and its style: labels stand at the right
      lines.forEach((y, i) => {
        if (y === null) return;
        const style = plot.line_styles[i];
        parts.push(path(`M${left} ${down(y)}H${right}`, { stroke: style.colour,
          "stroke-width": 1.6, "stroke-dasharray": style.dash.join(" "), class: "line" }));
        ends.push([right, down(y), style]);
      });
      curves.forEach((curve, i) => {
        const style = plot.curve_styles[i];
        curve.seeds.forEach((ys, j) => ys.forEach((y) => parts.push(shape("circle",
          { cx: across(x[j]), cy: down(y), r: 2.4, fill: style.colour, "fill-opacity": 0.5,
            stroke: "currentColor", "stroke-width": 0.5, class: "seed" }))));
        parts.push(path(joined(curve),
          { stroke: style.colour, "stroke-width": 2.2, class: "curve" }));
        curve.mean.forEach((y, j) => y !== null && parts.push(mark(style, across(x[j]), down(y))));
        const end = curve.mean.findLastIndex((y) => y !== null);
        if (end >= 0) ends.push([across(x[end]), down(curve.mean[end]), style]);
      });
      spread(ends.map(([, y]) => y)).forEach((y, i) => {
        const [at, from, style] = ends[i];
        parts.push(path(`M${at} ${from}H${right + 4}L${right + 18} ${y}`,
          { stroke: style.colour, "stroke-dasharray": "1 3" }),
          style.mark ? mark(style, right + 26, y) : path(`M${right + 20} ${y}h12`,
            { stroke: style.colour, "stroke-width": 2.2 }),
          text(style.label, right + 36, y + 4));
      });
      const starts = plot.curves.map((mine, k) => [mine[0].mean[0], k]).filter(([y]) => y !== null);
      spread(starts.map(([y]) => down(y))).forEach((y, i) => {
        const now = starts[i][1] === notch;
        parts.push(text(notches[starts[i][1]], left - 8, y + 4,
          { "text-anchor": "end", "font-weight": now ? "bold" : "", opacity: now ? 1 : 0.6 }));
      });
      return parts;
    };

    const [head, slider] = notched(plot.name, notches, (notch) => {
      model.set("notch", notch);
      model.save_changes();
    });
    const layer = shape("g", {});
    const picture = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img",
      "font-size": 12, style: "display: block; width: 100%" }, rules, names, layer);
    const caption = make("div", { className: "caption" }, "min-height: 2.8em");
    const box = lettered(make("div", { className: "curve-slider" }, "max-width: 46em"),
      model.get("font"));

    const draw = () => {
      const notch = Math.max(0, Math.min(notches.length - 1, model.get("notch")));
      layer.replaceChildren(...drawn(notch));
      slider.value = notch;
      caption.textContent = plot.captions[notch];
      slider.setAttribute("aria-valuetext", plot.captions[notch]);
      picture.setAttribute("aria-label", plot.captions[notch]);
    };
    box.append(head, picture, caption);
    el.append(box);
    draw();
    model.on("change:notch", draw);
    return () => model.off("change:notch", draw);
  },
};
