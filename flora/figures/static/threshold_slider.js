(() => {
  const box = document.querySelector('.flora-threshold[data-key="$key"]:not([data-ready])');
  if (!box) return;
  box.dataset.ready = "";
  const low = $low, span = $high - $low, step = $step;
  const pixels = Uint8Array.from(atob("$pixels"), c => c.charCodeAt(0));
  const slider = box.querySelector("input"), text = box.querySelector("output");
  const context = box.querySelector("canvas").getContext("2d");
  const picture = context.createImageData($columns, $rows);
  const colours = [[47, 164, 255], [240, 228, 66], [192, 58, 0]];
  const draw = () => {
    const limit = Math.round((slider.value - low) / step), counts = [0, 0, 0];
    pixels.forEach((pixel, n) => {
      const level = pixel & 127, water = pixel > 127, dark = level <= limit;
      let rgb = null;
      if (pixel === 127) rgb = [150, 150, 150];
      else if (dark || water) {
        const kind = dark ? (water ? 0 : 2) : 1;
        counts[kind] += 1;
        rgb = colours[kind];
      }
      const grey = 255 * Math.min(Math.max((level - 0.5) * step / span, 0), 1);
      rgb = rgb || [grey, grey, grey];
      picture.data.set([rgb[0], rgb[1], rgb[2], 255], 4 * n);
    });
    context.putImageData(picture, 0, 0);
    const [found, missed, wrong] = counts, two = part => part.toFixed(2);
    const iou = two(found / Math.max(found + missed + wrong, 1));
    const recall = two(found / Math.max(found + missed, 1));
    const precision = two(found / Math.max(found + wrong, 1));
    const at = Number(slider.value).toFixed(2).replace("-", "\u2212") + " dB";
    text.textContent = at + ": IoU " + iou + ", recall " + recall + ", precision " + precision;
    slider.setAttribute("aria-valuetext", at + ", IoU " + iou);
  };
  slider.addEventListener("input", draw);
  draw();
})();
