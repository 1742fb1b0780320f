// The browser's half of RankSlider. It keeps the running sum frozen + B[:, :r] A[:r] and adds or
// takes away one outer product per step, so a move costs m * n multiplications and no message.
export default {
  render({ model, el }) {
    const [m, n, most] = ["m", "n", "most"].map((name) => model.get(name));
    const bytes = (name) => {
      const view = model.get(name);
      return view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
    };
    const left = new Int16Array(bytes("left")); // most x m
    const right = new Int16Array(bytes("right")); // most x n
    const scales = model.get("scales"); // of each layer: left times right times this
    const frozen = new Uint8Array(bytes("frozen")); // m x n, or empty

    const fresh = () => (frozen.length ? Float32Array.from(frozen) : new Float32Array(m * n));
    const add = (sum, j, sign) => {
      for (let y = 0; y < m; y++) {
        const b = sign * scales[j] * left[j * m + y];
        for (let x = 0; x < n; x++) sum[y * n + x] += b * right[j * n + x];
      }
    };
    const paint = (canvas, sum) => {
      const context = canvas.getContext("2d");
      const image = context.createImageData(n, m);
      const grey = image.data; // clamps and rounds by itself
      for (let i = 0; i < sum.length; i++) {
        grey[4 * i] = grey[4 * i + 1] = grey[4 * i + 2] = sum[i];
        grey[4 * i + 3] = 255;
      }
      context.putImageData(image, 0, 0);
    };

    const slider = make("input", { type: "range", min: 0, max: most }, "width: 100%");
    slider.setAttribute("aria-label", "rank");
    const canvas = make("canvas", { width: n, height: m, className: "rank-picture" },
      "display: block; width: min(100%, 24em)");
    canvas.setAttribute("role", "img");
    const caption = make("div", {}, "min-height: 2.8em");
    const time = make("span", {}, "opacity: 0.7");
    const row = make("div", {}, "display: flex; flex-wrap: wrap; gap: 6px");
    const box = lettered(make("div", { className: "rank-slider" }, "max-width: 46em"),
      model.get("font"));

    const sum = fresh();
    let have = 0;
    const draw = () => {
      const start = performance.now();
      const rank = Math.max(0, Math.min(most, model.get("rank")));
      while (have < rank) add(sum, have++, 1);
      while (have > rank) add(sum, --have, -1);
      paint(canvas, sum);
      const line = model.get("captions")[rank];
      slider.value = rank;
      slider.setAttribute("aria-valuetext", line);
      canvas.setAttribute("aria-label", "the picture at rank " + rank);
      caption.replaceChildren(line + " ", time);
      time.textContent = `(drawn in ${(performance.now() - start).toFixed(1)} ms)`;
    };
    const move = (rank) => {
      model.set("rank", rank);
      model.save_changes();
    };
    slider.oninput = () => move(Number(slider.value));

    const small = fresh(); // the fixed row: each picture is also a button that goes there
    let reached = 0;
    for (const rank of model.get("row")) {
      while (reached < rank) add(small, reached++, 1);
      const view = make("canvas", { width: n, height: m }, "width: 84px; display: block");
      paint(view, small);
      const button = make("button", { type: "button", onclick: () => move(rank) }, "padding: 2px; font: inherit");
      button.setAttribute("aria-label", "go to rank " + rank);
      button.append(view, "r = " + rank);
      row.append(button);
    }

    box.append(slider, canvas, caption, row);
    el.append(box);
    draw();
    model.on("change:rank", draw);
    return () => model.off("change:rank", draw);
  },
};
