"use strict";
// A map of one scene on a canvas: no library, no network, one page.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { width, height } = data;
  const find = selector => document.querySelector(selector);
  const stage = find(".stage"), canvas = find(".stage canvas"), context = canvas.getContext("2d");
  const slider = find("#threshold"), divider = find(".divider"), place = find(".place");
  const swipe = find("#swipe"), other = find("#other");
  const UNSEEN = 127, PERMANENT = 128, RADIUS = 6378137;

  // --- layers ------------------------------------------------------------------------------------

  const surface = () => Object.assign(document.createElement("canvas"), { width, height });

  const painted = colour => {
    const image = surface(), into = image.getContext("2d");
    const picture = into.createImageData(width, height);
    const pixels = new Uint32Array(picture.data.buffer);
    return { image, paint() {
      for (let n = 0; n < levels.length; n++) pixels[n] = colour(levels[n]);
      into.putImageData(picture, 0, 0);
    } };
  };
  // Alpha, blue, green, red: the order of bytes in a 32-bit number on every machine of today.
  const packed = ([red, green, blue]) => (255 << 24 | blue << 16 | green << 8 | red) >>> 0;

  const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const inflate = async text => {
    const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
    const rows = new Uint8Array(await new Response(stream).arrayBuffer());
    // Each row holds differences from the pixel on the left, which compress better.
    for (let n = 0; n < rows.length; n++) if (n % width) rows[n] += rows[n - 1];
    return rows;
  };

  let levels = null, layers = [];
  const limit = () => Math.round(slider.value * 100);

  const outlines = data.outlines.map(outline => {
    const path = new Path2D();
    for (const ring of outline.rings) {
      for (let n = 0; n < ring.length; n += 2) path[n ? "lineTo" : "moveTo"](ring[n], ring[n + 1]);
      path.closePath();
    }
    return { ...outline, path };
  });

  const load = async () => {
    levels = await inflate(data.levels);
    const ramp = bytes(data.ramp);
    const ramped = Array.from({ length: 101 }, (_, n) => packed(ramp.subarray(3 * n)));
    const flood = packed(data.flood), permanent = packed(data.permanent);
    const chance = painted(level => (level & 127) === UNSEEN ? 0 : ramped[level & 127]);
    const water = painted(level => {
      const wet = (level & 127) !== UNSEEN && (level & 127) >= limit();
      return wet ? (level >= PERMANENT ? permanent : flood) : 0;
    });
    chance.paint();
    const every = await Promise.all(data.images.map(async ({ name, source, over }) => {
      const image = new Image();
      image.src = source;
      await image.decode();
      return { name, image, on: false, opacity: over ? 0.6 : 1, comparable: !over, over };
    }));
    const images = every.filter(image => !image.over);
    const ground = images.find(image => !image.name.includes("before")) || images[0];
    if (ground) ground.on = true;
    layers = [
      ...(data.tiles ? [{ name: "base map (from the network)", tiles: true, on: false, opacity: 1 }] : []),
      ...images,
      { name: "water probability", image: chance.image, on: !images.length, opacity: 1,
        comparable: true, ramp: true },
      { name: data.split ? "flood and permanent water" : "water", image: water.image, on: true,
        opacity: 0.8, repaint: water.paint },
      ...every.filter(image => image.over),
      ...(outlines.length ? [{ name: "polygons", outlines: true, on: false, opacity: 1 }] : []),
    ];
  };

  // --- the view ----------------------------------------------------------------------------------

  // Pixel of the scene in the middle of the stage, and how many CSS pixels it is wide.
  const view = { x: width / 2, y: height / 2, scale: 1 };
  let line = 0.5;
  const whole = () => Math.min(stage.clientWidth / width, stage.clientHeight / height);

  const move = (x, y, scale) => {
    view.scale = Math.min(Math.max(scale, whole() * 0.5), Math.max(16, 16 * whole()));
    view.x = Math.min(Math.max(x, 0), width);
    view.y = Math.min(Math.max(y, 0), height);
    draw();
  };
  const reset = () => move(width / 2, height / 2, whole());
  // The point of the scene under (x, y) of the stage stays there.
  const zoom = (factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) => {
    const [column, row] = under(x, y), before = view.scale;
    const scale = Math.min(Math.max(before * factor, whole() * 0.5), Math.max(16, 16 * whole()));
    const ratio = before / scale;
    move(column + (view.x - column) * ratio, row + (view.y - row) * ratio, scale);
  };
  const under = (x, y) => [
    view.x + (x - stage.clientWidth / 2) / view.scale,
    view.y + (y - stage.clientHeight / 2) / view.scale,
  ];
  const latitude = row => 2 * Math.atan(Math.exp((data.top - row * data.pixel) / RADIUS)) - Math.PI / 2;
  const degrees = (column, row) => [
    latitude(row) * 180 / Math.PI,
    // East of 180 degrees the map runs on, and longitudes begin again.
    ((data.left + column * data.pixel) / RADIUS * 180 / Math.PI + 540) % 360 - 180,
  ];

  let waiting = false;
  const draw = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; render(); });
  };

  const render = () => {
    const ratio = window.devicePixelRatio || 1;
    const [w, h] = [stage.clientWidth, stage.clientHeight];
    if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
      canvas.width = Math.round(w * ratio);
      canvas.height = Math.round(h * ratio);
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    const k = ratio * view.scale;
    context.setTransform(k, 0, 0, k, ratio * w / 2 - k * view.x, ratio * h / 2 - k * view.y);
    context.imageSmoothingEnabled = view.scale < 2;
    const at = under(line * w, 0)[0];
    const against = swipe.checked ? layers.find(layer => layer.name === other.value) : null;
    if (against) clipped(-1e6, at, () => paint({ ...against, opacity: 1 }));
    clipped(against ? at : -1e6, 1e6, () => layers.filter(layer => layer.on).forEach(paint));
    drawScale();
    for (const part of [divider, find(".left"), find(".right")]) part.hidden = !against;
    divider.style.left = `${100 * line}%`;
    divider.setAttribute("aria-valuenow", Math.round(100 * line));
    if (against) {
      find(".left").style.cssText = `left: 0; width: ${100 * line}%`;
      find(".right").style.cssText = `left: ${100 * line}%; right: 0`;
      find(".left span").textContent = against.name;
      find(".left span").style.right = "1.6rem";
      const base = layers.filter(layer => layer.on && (layer.comparable || layer.tiles)).pop();
      find(".right span").textContent = base ? base.name : "layers";
      find(".right span").style.left = "1.6rem";
    }
  };

  const clipped = (from, to, body) => {
    context.save();
    context.beginPath();
    context.rect(from, -1e6, to - from, 2e6);
    context.clip();
    body();
    context.restore();
  };

  const paint = layer => {
    context.globalAlpha = layer.opacity;
    if (layer.tiles) drawTiles();
    else if (layer.outlines) drawOutlines();
    else context.drawImage(layer.image, 0, 0, width, height);
    context.globalAlpha = 1;
  };

  const drawOutlines = () => {
    context.save();
    context.scale(1 / data.steps, 1 / data.steps);
    const thin = data.steps / view.scale;
    for (const { path, kind } of outlines) {
      context.lineWidth = 3 * thin;
      context.strokeStyle = "#000";
      context.stroke(path);
      context.lineWidth = 1.5 * thin;
      context.strokeStyle = kind === "permanent water" ? "#9ecae1" : "#ffe600";
      context.stroke(path);
    }
    context.restore();
  };

  const drawScale = () => {
    const bar = find(".scale i"), text = find(".scale span");
    let metres = 1, unit = ["px", "px", 1e12];
    if (data.pixel !== null) {
      metres = data.pixel * Math.cos(latitude(view.y));
      unit = ["m", "km", 1000];
    }
    const most = Math.min(140, stage.clientWidth / 4) / view.scale * metres;
    const power = 10 ** Math.floor(Math.log10(most));
    const length = [5, 2, 1].map(step => step * power).find(size => size <= most * (1 + 1e-9));
    bar.style.width = `${length / metres * view.scale}px`;
    const shown = length >= unit[2] ? `${+(length / unit[2]).toPrecision(3)} ${unit[1]}`
      : `${+length.toPrecision(3)} ${unit[0]}`;
    text.textContent = shown;
  };

  // Tiles of a base map come one by one; those that do not come leave the plain ground.
  const tiles = new Map();
  const drawTiles = () => {
    const around = 2 * Math.PI * RADIUS;
    const level = Math.min(18, Math.max(0, Math.round(Math.log2(
      around / 256 / (data.pixel / view.scale)))));
    const side = around / 2 ** level / data.pixel;
    const [c0, r0] = [-(data.left + around / 2) / data.pixel, -(around / 2 - data.top) / data.pixel];
    const [left, top] = under(0, 0), [right, bottom] = under(stage.clientWidth, stage.clientHeight);
    for (let x = Math.floor((left - c0) / side); x <= Math.floor((right - c0) / side); x++) {
      for (let y = Math.floor((top - r0) / side); y <= Math.floor((bottom - r0) / side); y++) {
        const column = x & (2 ** level - 1);  // the columns of tiles begin again, too
        const address = data.tiles.replace("{z}", level).replace("{x}", column).replace("{y}", y);
        if (!tiles.has(address)) {
          const tile = new Image();
          tile.onload = draw;
          tile.src = address;
          tiles.set(address, tile);
        }
        const tile = tiles.get(address);
        if (tile.complete && tile.naturalWidth) {
          context.drawImage(tile, c0 + x * side, r0 + y * side, side, side);
        }
      }
    }
  };

  // --- the panel ---------------------------------------------------------------------------------

  const element = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };
  const key = colour => {
    const made = element("i", { className: "key" });
    made.style.background = `rgb(${colour.join(" ")})`;
    return made;
  };
  const area = value => {
    const digits = data.unit === "px" || value >= 1000 ? 0 : value >= 10 ? 2 : 3;
    return `${value.toLocaleString("en-US", { minimumFractionDigits: digits,
      maximumFractionDigits: digits })} ${data.unit}`;
  };

  // An interval does not move with the threshold, so the map can leave it: that is said.
  const judge = mapped => {
    if (!data.intervals.length) return;
    const ends = data.intervals.map(({ of, ends: [low, high] }) =>
      `of ${of} ${area(low)} to ${area(high)}`);
    const away = data.intervals.flatMap(({ of, ends: [low, high] }) =>
      mapped[of] > high ? [`more ${of}`] : mapped[of] < low ? [`less ${of}`] : []);
    find(".interval").hidden = false;
    const named = data.intervals.length > 1 ? "intervals" : "an interval";
    find(".interval").textContent = `True area ${ends.join(", ")}; ${named} `
      + `${data.intervals[0].promise}.`
      + (away.length ? ` At this threshold, the map shows ${away.join(" and ")}.` : "");
  };

  const read = () => {
    const [flood, permanent] = data.areas[limit()];
    judge({ flood, water: flood + permanent });
    find("label output").textContent = Number(slider.value).toFixed(2);
    const rows = data.split
      ? [[key(data.flood), "flood", flood], [key(data.permanent), "permanent water", permanent]]
      : [[key(data.flood), "water", flood]];
    rows.push(["", "of the area mapped", data.valid]);
    find(".areas").replaceChildren(...rows.flatMap(([swatch, name, value]) => [
      element("dt", {}, swatch, name), element("dd", {}, area(value)),
    ]));
    const said = rows.slice(0, -1).map(([, name, value]) => `${name} ${area(value)}`).join(", ");
    slider.setAttribute("aria-valuetext", `${Number(slider.value).toFixed(2)}: ${said}`);
  };

  const listLayers = () => {
    const top = [...layers].reverse();
    find(".layers").replaceChildren(...top.map(layer => {
      const box = element("input", { type: "checkbox", checked: layer.on });
      const fade = element("input", { type: "range", min: 0, max: 100, step: 5,
        value: 100 * layer.opacity, title: "Opacity", disabled: !layer.on });
      fade.setAttribute("aria-label", `Opacity of ${layer.name}, percent`);
      box.addEventListener("change", () => {
        layer.on = box.checked;
        fade.disabled = !layer.on;
        legend();
        draw();
      });
      fade.addEventListener("input", () => { layer.opacity = fade.value / 100; draw(); });
      const swatch = layer.over ? [key(layer.over)] : [];
      const label = element("label", {}, box, ...swatch, layer.name);
      return element("li", { className: "row" }, label, fade);
    }));
    other.replaceChildren(...layers.filter(layer => layer.comparable)
      .map(layer => element("option", { value: layer.name }, layer.name)));
    const first = layers.find(layer => layer.name.includes("before"))
      || layers.find(layer => layer.comparable);
    other.value = first.name;
  };
  const legend = () => {
    find(".probability").hidden = !layers.some(layer => layer.ramp && layer.on);
  };

  // --- mouse, touch, keys --------------------------------------------------------------------------

  const fingers = new Map();
  let moved = 0;
  const position = event => {
    const box = stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  stage.addEventListener("pointerdown", event => {
    if (event.target.closest("button, .divider")) return;
    stage.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, position(event));
    moved = 0;
  });
  stage.addEventListener("pointermove", event => {
    const now = position(event), last = fingers.get(event.pointerId);
    if (!last) {
      if (event.pointerType === "mouse") tell(...now);
      return;
    }
    const still = [...fingers].find(([id]) => id !== event.pointerId);
    fingers.set(event.pointerId, now);
    moved += Math.hypot(now[0] - last[0], now[1] - last[1]);
    if (still) {
      const rest = still[1];
      const span = to => Math.max(Math.hypot(to[0] - rest[0], to[1] - rest[1]), 10);
      const middle = to => [(to[0] + rest[0]) / 2, (to[1] + rest[1]) / 2];
      zoom(span(now) / span(last), ...middle(last));
      shift(middle(now)[0] - middle(last)[0], middle(now)[1] - middle(last)[1]);
    } else shift(now[0] - last[0], now[1] - last[1]);
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    stage.addEventListener(kind, event => {
      if (fingers.delete(event.pointerId) && moved < 5) tell(...position(event));
    });
  }
  const shift = (dx, dy) => move(view.x - dx / view.scale, view.y - dy / view.scale, view.scale);

  stage.addEventListener("wheel", event => {
    // Inside another page, the wheel scrolls that page until the map has been clicked.
    const embedded = document.documentElement.classList.contains("embedded");
    if (embedded && !event.ctrlKey && !stage.contains(document.activeElement)) return;
    event.preventDefault();
    zoom(2 ** (-event.deltaY * (event.deltaMode ? 20 : 1) / 300), ...position(event));
  }, { passive: false });
  stage.addEventListener("dblclick", event => {
    if (!event.target.closest("button, .divider")) zoom(2, ...position(event));
  });
  stage.addEventListener("keydown", event => {
    if (event.target !== stage || event.ctrlKey || event.metaKey || event.altKey) return;
    const steps = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
    if (steps[event.key]) shift(...steps[event.key]);
    else if (event.key === "+" || event.key === "=") zoom(1.5);
    else if (event.key === "-") zoom(1 / 1.5);
    else if (event.key === "0") reset();
    else return;
    event.preventDefault();
  });
  document.querySelectorAll("[data-zoom]").forEach(button => button.addEventListener("click", () => {
    const step = Number(button.dataset.zoom);
    if (step) zoom(2 ** step);
    else reset();
  }));

  const setLine = to => { line = Math.min(Math.max(to, 0), 1); draw(); };
  divider.addEventListener("pointerdown", event => divider.setPointerCapture(event.pointerId));
  divider.addEventListener("pointermove", event => {
    if (divider.hasPointerCapture(event.pointerId)) setLine(position(event)[0] / stage.clientWidth);
  });
  divider.addEventListener("keydown", event => {
    const to = { ArrowLeft: line - 0.02, ArrowRight: line + 0.02, Home: 0, End: 1 }[event.key];
    if (to === undefined) return;
    setLine(to);
    event.preventDefault();
  });

  // What lies under a point: where it is, how probable water is there, and its polygon.
  const scratch = document.createElement("canvas").getContext("2d");
  const tell = (x, y) => {
    const [column, row] = under(x, y).map(Math.floor);
    if (column < 0 || row < 0 || column >= width || row >= height || !levels) {
      place.textContent = "";
      return;
    }
    const said = [];
    if (data.pixel !== null) {
      const [north, east] = degrees(...under(x, y));
      said.push(`${Math.abs(north).toFixed(4)}° ${north < 0 ? "S" : "N"}, `
        + `${Math.abs(east).toFixed(4)}° ${east < 0 ? "W" : "E"}`);
    }
    const level = levels[row * width + column] & 127;
    said.push(level === UNSEEN ? "no data" : `probability ${(level / 100).toFixed(2)}`);
    const shown = layers.some(layer => layer.outlines && layer.on);
    const [px, py] = under(x, y).map(value => value * data.steps);
    const inside = shown && outlines.findLast(
      ({ path }) => scratch.isPointInPath(path, px, py, "evenodd"));
    if (inside) said.push(`${inside.kind} of ${area(inside.area)}`);
    place.textContent = said.join(" · ");
  };

  // --- theme, size, start ----------------------------------------------------------------------------

  const root = document.documentElement;
  const host = () => {
    try { return window.frameElement; } catch { return null; }  // a page of another origin around us
  };
  const frame = host();
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const theme = () => {
    const given = frame && frame.ownerDocument.documentElement.dataset.theme;
    root.dataset.theme = given || (dark.matches ? "dark" : "light");
  };
  dark.addEventListener("change", theme);
  if (window.parent !== window) root.classList.add("embedded");
  if (frame) {
    new MutationObserver(theme).observe(frame.ownerDocument.documentElement,
      { attributes: true, attributeFilter: ["data-theme"] });
    new ResizeObserver(() => { frame.style.height = `${find("main").offsetHeight + 2}px`; })
      .observe(find("main"));
  }
  theme();

  let fitted = true;
  new ResizeObserver(() => {
    if (fitted) reset();
    else draw();
  }).observe(stage);
  for (const kind of ["pointerdown", "wheel", "keydown"]) {
    stage.addEventListener(kind, () => { fitted = false; }, { passive: true });
  }

  slider.value = data.threshold;
  find(".ramp").style.background = `linear-gradient(to right, ${data.rampColours.join(", ")})`;
  find(".north").hidden = data.pixel === null;
  if (data.leftOut) {
    find(".outlines").hidden = false;
    find(".outlines").textContent = `The ${outlines.length} largest polygons are drawn, `
      + `${data.leftOut} smaller ones are not.`;
  }
  const apply = () => {
    layers.forEach(layer => layer.repaint && layer.repaint());
    read();
    draw();
  };
  slider.addEventListener("input", apply);
  swipe.addEventListener("change", draw);
  other.addEventListener("change", draw);
  read();
  load().then(() => {
    listLayers();
    legend();
    apply();
    reset();
    requestAnimationFrame(() => requestAnimationFrame(() => { root.dataset.ready = ""; }));
  }, error => { place.textContent = `The map cannot be shown: ${error.message}`; });
})();
