// The browser's half of TextSlider. All texts are here from the start, so a move sends no message.
export default {
  render({ model, el }) {
    const [notches, texts, captions] = ["notches", "texts", "captions"].map((n) => model.get(n));
    const [head, slider] = notched(model.get("name"), notches, (notch) => {
      model.set("notch", notch);
      model.save_changes();
    });
    const height = Math.max(...texts.map((text) => text.split("\n").length + text.length / 80));
    const said = make("div", { className: "said" }, "white-space: pre-wrap; "
      + "border-left: 3px solid #8a8a8a; padding-left: 1em; "
      + `min-height: ${Math.ceil(height * 1.25)}em`);
    said.setAttribute("aria-live", "polite");
    const caption = make("div", { className: "caption" }, "min-height: 1.6em; opacity: 0.8");
    const box = lettered(make("div", { className: "text-slider" }, "max-width: 46em"),
      model.get("font"));
    const draw = () => {
      const notch = Math.max(0, Math.min(notches.length - 1, model.get("notch")));
      slider.value = notch;
      said.textContent = texts[notch];
      caption.textContent = captions[notch];
      slider.setAttribute("aria-valuetext", captions[notch]);
    };
    box.append(head, said, caption);
    el.append(box);
    draw();
    model.on("change:notch", draw);
    return () => model.off("change:notch", draw);
  },
};
