// Confusion matrix: a canvas that is zoomed and moved, and the most confused pairs beside it.

const LABEL_CELL = 11; // pixels of a cell from which on class names are drawn
const COUNT_CELL = 22; // ... and numbers in the cells
const NAME_WIDTH = 132; // pixels of the names beside the matrix

function confusionSection(found) {
  const size = found.names.length;
  const totals = new Array(size).fill(0);
  const correct = new Array(size).fill(0);
  found.labels.forEach((label, n) => {
    totals[label] += found.videos[n];
    if (label === found.predictions[n]) correct[label] += found.videos[n];
  });
  const matrix = new Matrix(found, totals, correct);
  const pairs = [];
  found.labels.forEach((label, n) => {
    const other = found.predictions[n];
    const share = (100 * found.videos[n]) / totals[label];
    if (label !== other) pairs.push([found.names[label], found.names[other], found.videos[n], share, label, other]);
  });
  pairs.sort((one, other) => other[2] - one[2] || other[3] - one[3]);
  const columns = [
    { title: "label", kind: "text" }, { title: "predicted as", kind: "text" },
    { title: "videos", kind: "number", digits: 0 }, { title: "share of the label (%)", kind: "percent", digits: 1 },
  ];
  const list = pairs.length
    ? sortableTable({ columns, rows: pairs }, { name: "most confused pairs", sortBy: 2, descending: true,
      chosen: (row) => matrix.focus(row[4], row[5]) })
    : element("p", {}, "No video was predicted as a wrong class.");
  const unread = found.unread ? `; ${found.unread} unreadable videos are not in it` : "";
  const note = `Rows are labels, columns are predictions. Each row is colored by its share of the videos of the label${unread}.`;
  return element("div", {}, element("p", { class: "note" }, note),
    element("div", { class: "beside" }, matrix.box,
      element("div", {}, element("h3", {}, "Most confused pairs"),
        pairs.length ? element("p", { class: "note" }, "A click on a row shows its cell in the matrix.") : null, list)));
}

// Orders of the classes by name; each returns class numbers.
function classOrders(found, totals, correct) {
  const all = found.names.map((_, label) => label);
  const accuracy = (label) => (totals[label] ? correct[label] / totals[label] : 2);
  return {
    "as in the dataset": () => all,
    "by name": () => all.slice().sort((a, b) => found.names[a].localeCompare(found.names[b], undefined, { numeric: true })),
    "lowest accuracy first": () => all.slice().sort((a, b) => accuracy(a) - accuracy(b)),
    "confused classes side by side": () => sideBySide(found, all),
  };
}

// Follow, from class to class, the most frequent confusion with one of the last three.
function sideBySide(found, all) {
  const links = all.map(() => new Map());
  found.labels.forEach((label, n) => {
    const other = found.predictions[n];
    if (label === other) return;
    for (const [a, b] of [[label, other], [other, label]]) links[a].set(b, (links[a].get(b) ?? 0) + found.videos[n]);
  });
  const weight = links.map((of) => [...of.values()].reduce((sum, videos) => sum + videos, 0));
  const left = new Set(all.slice().sort((a, b) => weight[b] - weight[a]));
  const order = [];
  while (left.size) {
    let next = null;
    let most = 0;
    for (const near of order.slice(-3)) {
      for (const [other, videos] of links[near]) {
        if (left.has(other) && videos > most) [next, most] = [other, videos];
      }
    }
    next ??= left.values().next().value;
    left.delete(next);
    order.push(next);
  }
  return order;
}

class Matrix {
  constructor(found, totals, correct) {
    Object.assign(this, { found, totals, correct, size: found.names.length });
    this.cells = new Map(found.labels.map((label, n) => [label * this.size + found.predictions[n], found.videos[n]]));
    this.orders = classOrders(found, totals, correct);
    this.zoom = 1; // 1 shows all classes
    this.left = this.top = 0; // first class shown, in places of the order
    this.marked = null;
    this.canvas = element("canvas", { tabindex: 0, role: "img", "aria-label": "confusion matrix" });
    this.area = element("div", { class: "matrix" }, this.canvas);
    this.tip = tooltip(this.area);
    this.box = element("div", {}, this.controls(), this.area,
      colorBar("share of the videos of the label (%)", (share) => shareColor(share), ["0", "50", "100"]));
    this.reorder(Object.keys(this.orders)[0]);
    this.listen();
    drawToFit(this.area, (width) => { this.width = width; this.draw(); });
  }

  controls() {
    const choices = Object.keys(this.orders).map((name) => element("option", {}, name));
    const order = element("select", { "aria-label": "Order of the classes", change: () => this.reorder(order.value) }, ...choices);
    const names = element("datalist", { id: "classes" }, ...this.found.names.map((name) => element("option", { value: name })));
    const find = element("input", { type: "search", list: "classes", placeholder: "Find a class", "aria-label": "Find a class",
      change: () => { const label = this.found.names.indexOf(find.value); if (label >= 0) this.focus(label, label); } });
    const button = (text, title, act) => element("button", { type: "button", title, "aria-label": title, click: act }, text);
    const zoom = element("span", { class: "buttons" },
      button("+", "Zoom in", () => this.zoomBy(1.6)), button("−", "Zoom out", () => this.zoomBy(1 / 1.6)),
      button("All", "Show all classes", () => { this.marked = null; this.zoomBy(0); }));
    return element("div", { class: "bar" }, element("label", {}, "Order ", order), find, names, zoom);
  }

  reorder(name) {
    this.order = this.orders[name]();
    this.places = [];
    this.order.forEach((label, place) => { this.places[label] = place; });
    this.draw();
  }

  get side() { return Math.max(this.width - this.origin, 40); } // pixels of the square
  get origin() { return Math.min(NAME_WIDTH, Math.floor(this.width / 3)); } // where it begins
  get shown() { return this.size / this.zoom; } // classes
  get cell() { return this.side / this.shown; }

  zoomBy(factor, x = 0.5, y = 0.5) {
    const before = this.shown;
    this.zoom = Math.min(Math.max(this.zoom * factor, 1), Math.max(this.size / 5, 1));
    this.move((before - this.shown) * x, (before - this.shown) * y);
  }

  move(columns, rows) {
    const most = this.size - this.shown;
    this.left = Math.min(Math.max(this.left + columns, 0), most);
    this.top = Math.min(Math.max(this.top + rows, 0), most);
    this.draw();
  }

  // Show the cell of a label and a prediction, with class names.
  focus(label, prediction) {
    this.marked = [label, prediction];
    this.zoom = Math.max(this.zoom, this.size / Math.max(Math.min(this.size, this.side / 24), 5), 1);
    this.left = this.top = 0;
    this.move(this.places[prediction] + 0.5 - this.shown / 2, this.places[label] + 0.5 - this.shown / 2);
    this.area.scrollIntoView({ block: "nearest" });
  }

  listen() {
    const fraction = (event) => {
      const area = this.canvas.getBoundingClientRect();
      return [(event.clientX - area.left - this.origin) / this.side, (event.clientY - area.top) / this.side];
    };
    let drag = null;
    this.canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey && document.activeElement !== this.canvas) return; // the page scrolls
      event.preventDefault();
      this.zoomBy(2 ** (-event.deltaY / 300), ...fraction(event));
    }, { passive: false });
    this.canvas.addEventListener("dblclick", (event) => this.zoomBy(2, ...fraction(event)));
    this.canvas.addEventListener("pointerdown", (event) => {
      drag = fraction(event);
      if (this.zoom > 1) this.canvas.setPointerCapture(event.pointerId);
    });
    this.canvas.addEventListener("pointerup", () => { drag = null; });
    this.canvas.addEventListener("pointerleave", () => { drag = null; this.tip.hide(); });
    this.canvas.addEventListener("pointermove", (event) => {
      const at = fraction(event);
      if (drag !== null && this.zoom > 1) this.move((drag[0] - at[0]) * this.shown, (drag[1] - at[1]) * this.shown);
      if (drag !== null) drag = at;
      this.describe(at, event);
    });
    this.canvas.addEventListener("keydown", (event) => {
      const step = this.shown / 8;
      const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
      if (event.key === "+" || event.key === "-") this.zoomBy(event.key === "+" ? 1.6 : 1 / 1.6);
      else if (event.key in moves) this.move(...moves[event.key]);
      else return;
      event.preventDefault();
    });
  }

  describe([x, y], event) {
    const column = Math.floor(this.left + x * this.shown);
    const row = Math.floor(this.top + y * this.shown);
    if (!(x >= 0 && y >= 0 && x < 1 && y < 1)) { this.tip.hide(); return; }
    const [label, prediction] = [this.order[row], this.order[column]];
    const videos = this.cells.get(label * this.size + prediction) ?? 0;
    const share = this.totals[label] ? ` (${((100 * videos) / this.totals[label]).toFixed(1)} % of the label)` : "";
    const area = this.area.getBoundingClientRect();
    this.tip.show(event.clientX - area.left, event.clientY - area.top,
      `label: ${this.found.names[label]}`, `prediction: ${this.found.names[prediction]}`, `${videos} ${videos === 1 ? "video" : "videos"}${share}`);
  }

  draw() {
    if (!this.width) return;
    const below = this.cell >= LABEL_CELL ? NAME_WIDTH + 4 : 38;
    const [density, height] = [window.devicePixelRatio || 1, this.side + below];
    this.canvas.width = Math.round(this.width * density);
    this.canvas.height = Math.round(height * density);
    this.canvas.style.height = `${height}px`;
    this.canvas.style.touchAction = this.zoom > 1 ? "none" : "pan-y";
    const context = this.canvas.getContext("2d");
    context.setTransform(density, 0, 0, density, 0, 0);
    context.font = "11px system-ui, sans-serif";
    context.save();
    context.beginPath();
    context.rect(this.origin, 0, this.side, this.side);
    context.clip();
    this.drawCells(context);
    context.restore();
    context.strokeStyle = color("line");
    context.strokeRect(this.origin + 0.5, 0.5, this.side - 1, this.side - 1);
    this.drawNames(context);
  }

  drawCells(context) {
    context.fillStyle = color("surface");
    context.fillRect(this.origin, 0, this.side, this.side);
    const drawn = Math.max(this.cell - (this.cell > 6 ? 1 : 0), 1.4); // a lone pixel would not be seen
    this.found.labels.forEach((label, n) => {
      const [column, row] = [this.places[this.found.predictions[n]] - this.left, this.places[label] - this.top];
      if (column <= -1 || row <= -1 || column >= this.shown || row >= this.shown) return;
      const share = this.found.videos[n] / this.totals[label];
      const [x, y] = [this.origin + column * this.cell, row * this.cell];
      context.fillStyle = shareColor(share);
      context.fillRect(x, y, drawn, drawn);
      if (this.cell >= COUNT_CELL) {
        context.fillStyle = share > 0.5 ? color("surface") : color("ink");
        context.textAlign = "center";
        context.fillText(String(this.found.videos[n]), x + this.cell / 2, y + this.cell / 2 + 4);
      }
    });
    if (this.marked !== null) {
      context.strokeStyle = color("s1");
      context.lineWidth = 2;
      const [x, y] = [this.places[this.marked[1]] - this.left, this.places[this.marked[0]] - this.top];
      context.strokeRect(this.origin + x * this.cell, y * this.cell, this.cell, this.cell);
      context.lineWidth = 1;
    }
  }

  drawNames(context) {
    context.fillStyle = color("muted");
    context.textAlign = "right";
    context.fillText("prediction →", this.origin - 8, this.side + 16);
    context.fillText("label ↑", this.origin - 8, this.side + 31);
    if (this.cell < LABEL_CELL) {
      const hint = [`${this.size} classes:`, "zoom in", "for their names"];
      hint.forEach((line, n) => context.fillText(line, this.origin - 8, 14 + 15 * n));
      return;
    }
    context.fillStyle = color("ink");
    for (let place = Math.ceil(this.top - 0.5); place < this.top + this.shown - 0.5 && place < this.size; place++) {
      context.textAlign = "right";
      const y = (place - this.top + 0.5) * this.cell;
      context.fillText(cut(context, this.found.names[this.order[place]], this.origin - 10), this.origin - 6, y + 4);
    }
    for (let place = Math.ceil(this.left - 0.5); place < this.left + this.shown - 0.5 && place < this.size; place++) {
      context.save();
      context.translate(this.origin + (place - this.left + 0.5) * this.cell + 4, this.side + 6);
      context.rotate(-Math.PI / 2);
      context.textAlign = "right";
      context.fillText(cut(context, this.found.names[this.order[place]], NAME_WIDTH - 8), 0, 0);
      context.restore();
    }
  }
}

// The longest beginning of a text that fits.
function cut(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let length = text.length;
  while (length > 0 && context.measureText(`${text.slice(0, length)}…`).width > width) length--;
  return `${text.slice(0, length)}…`;
}

// From the color of the page to a strong one; the smallest share is visible already.
function shareColor(share) {
  if (share <= 0) return color("surface");
  return `color-mix(in oklab, ${color("full")} ${(20 + 80 * share).toFixed(1)}%, ${color("surface")})`;
}
