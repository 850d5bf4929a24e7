(() => {
  const box = document.querySelector('.flora-attention[data-key="$key"]:not([data-ready])');
  if (!box) return;
  const copy = document.querySelectorAll(".flora-attention[data-ready]").length;
  box.dataset.ready = "";
  const {rows, columns, height, width, windows, shifted, start} = $settings;
  const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const weights = bytes("$weights"), pixels = bytes("$pixels");
  const zoom = 3, cell = zoom * height / rows, text = box.querySelector("output");
  let [row, column] = start, head = 0;

  const pictures = [0, 1].map(n => {
    const picture = document.createElement("canvas");
    Object.assign(picture, {width, height});
    const context = picture.getContext("2d"), image = context.createImageData(width, height);
    for (let i = 0; i < width * height; i++) {
      const from = 3 * (n * width * height + i);
      image.data.set([pixels[from], pixels[from + 1], pixels[from + 2], 255], 4 * i);
    }
    context.putImageData(image, 0, 0);
    return picture;
  });
  const [asking, seen] = box.querySelectorAll(".pair canvas");
  const near = box.querySelector(".window canvas");
  for (const canvas of [asking, seen])
    Object.assign(canvas, {width: zoom * width, height: zoom * height});

  let offset = 0;
  const heads = windows.map((side, n) => {
    const label = document.createElement("label"), radio = document.createElement("input");
    const canvas = document.createElement("canvas"), name = document.createElement("span");
    Object.assign(radio, {type: "radio", name: "head-$key-" + copy, checked: n === 0});
    Object.assign(canvas, {width: 128, height: 128});
    name.textContent = "head " + (n + 1) + ", " + side + " × " + side + " px";
    label.append(radio, canvas, name);
    box.querySelector("fieldset").append(label);
    radio.addEventListener("change", () => { head = n; draw(); });
    const at = offset;
    offset += rows * columns * side * side;
    return {side, canvas, first: at};
  });

  const query = ({side, first}) => {
    const from = first + (row * columns + column) * side * side;
    const stored = weights.subarray(from, from + side * side);
    const shift = shifted ? Math.floor(side / 2) : 0;
    const begin = position => Math.floor((position + shift) / side) * side - shift;
    return {stored, top: begin(row), left: begin(column)};
  };
  const frame = (context, x, y, w, h, colour) => {
    for (const [line, style] of [[5, "#000"], [2.5, colour]]) {
      Object.assign(context, {lineWidth: line, strokeStyle: style});
      context.strokeRect(x, y, w, h);
    }
  };
  // Cividis by four of its colours: it is even in lightness and safe for the colour-blind.
  const stops = [[0, 34, 78], [87, 93, 109], [165, 156, 116], [254, 232, 56]];
  const shade = (context, {stored, top, left}, side, x, y, size, opacity) => {
    stored.forEach((weight, n) => {
      const down = Math.floor(n / side), right = n % side;
      if (top + down < 0 || top + down >= rows || left + right < 0 || left + right >= columns)
        return;
      const t = weight / 85, from = Math.min(Math.floor(t), 2);
      const rgb = stops[from].map((c, i) => Math.round(c + (stops[from + 1][i] - c) * (t - from)));
      context.fillStyle = "rgba(" + rgb + ", " + opacity + ")";
      context.fillRect(x + right * size, y + down * size, size, size);
    });
  };
  const step = (by, positive, negative) =>
    by === 0 ? "" : Math.abs(by) + " " + (by > 0 ? positive : negative);

  const draw = () => {
    [asking, seen].forEach((canvas, n) => {
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = false;
      context.drawImage(pictures[n], 0, 0, canvas.width, canvas.height);
      const {side} = heads[head], window = query(heads[head]), {top, left} = window;
      if (n) shade(context, window, side, left * cell, top * cell, cell, 0.75);
      frame(context, left * cell, top * cell, side * cell, side * cell, "#fff");
      frame(context, column * cell, row * cell, cell, cell, "#f0e442");
    });
    [heads[head], ...heads].forEach((one, n) => {
      const {side} = one, window = query(one), {top, left} = window;
      const canvas = n ? one.canvas : near, context = canvas.getContext("2d");
      const unit = cell / zoom, size = canvas.width / side;
      context.imageSmoothingEnabled = false;
      context.fillStyle = "#808080";
      context.fillRect(0, 0, canvas.width, canvas.height);
      if (n) shade(context, window, side, 0, 0, size, 1);
      else context.drawImage(pictures[1], left * unit, top * unit, side * unit, side * unit,
        0, 0, canvas.width, canvas.height);
      frame(context, (column - left) * size, (row - top) * size, size, size,
        n ? "#fff" : "#f0e442");
    });
    const {side} = heads[head], {stored, top, left} = query(heads[head]);
    const total = stored.reduce((sum, weight) => sum + weight, 0);
    const shares = Array.from(stored, weight => weight / total), most = Math.max(...shares);
    const spread = Math.exp(-shares.reduce((sum, s) => sum + (s > 0 ? s * Math.log(s) : 0), 0));
    const best = shares.indexOf(most);
    const away = [step(top + Math.floor(best / side) - row, "down", "up"),
      step(left + best % side - column, "right", "left")].filter(Boolean).join(", ");
    text.textContent = "Row " + row + ", column " + column + ", head " + (head + 1) +
      ": looks at about " + spread.toFixed(1) + " of " + side * side + " pixels; most, " +
      (100 * most).toFixed(0) + " %, at " + (away || "its own place") + ".";
  };
  const move = (y, x) => {
    row = Math.min(Math.max(y, 0), rows - 1);
    column = Math.min(Math.max(x, 0), columns - 1);
    draw();
  };
  for (const canvas of [asking, seen]) canvas.addEventListener("click", event => {
    const place = canvas.getBoundingClientRect();
    move(Math.floor((event.clientY - place.top) / place.height * rows),
      Math.floor((event.clientX - place.left) / place.width * columns));
  });
  const keys = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
  asking.addEventListener("keydown", event => {
    if (!(event.key in keys)) return;
    event.preventDefault();
    const [down, right] = keys[event.key], far = event.shiftKey ? 8 : 1;
    move(row + far * down, column + far * right);
  });
  draw();
})();
