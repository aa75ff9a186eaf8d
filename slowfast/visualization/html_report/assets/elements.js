// Elements, numbers and colors. Text becomes text nodes only: nothing in the content can become markup.

const SVG = "http://www.w3.org/2000/svg";
const redraws = []; // functions that draw with colors of the page, called again when its mode changes

function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function shape(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// A short text of a number: 6 significant digits at most, or fixed decimal places.
function numberText(value, digits = null) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (digits !== null) return value.toFixed(digits);
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return String(value);
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e") : String(Number(value.toPrecision(5)));
}

// About `count` round numbers from `low` to `high`.
function ticks(low, high, count) {
  const rough = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) found.push(n * step);
  return found;
}

// Calls draw(width) now, and when the width of the element or the mode of the page changes.
function drawToFit(box, draw) {
  let width = 0;
  const redraw = () => width > 0 && draw(width);
  new ResizeObserver(() => {
    const now = Math.floor(box.clientWidth);
    if (now === width) return;
    width = now;
    redraw();
  }).observe(box);
  redraws.push(redraw);
}

// A line of text that follows the pointer over a box with `position: relative`.
function tooltip(box) {
  const tip = element("div", { class: "tip", role: "status", hidden: true });
  box.append(tip);
  return {
    show(x, y, ...lines) {
      tip.replaceChildren(...lines.map((line) => element("div", {}, ...[line].flat())));
      tip.hidden = false;
      const left = x + 14 + tip.offsetWidth > box.clientWidth ? x - 14 - tip.offsetWidth : x + 14;
      tip.style.left = `${Math.max(left, 0)}px`;
      tip.style.top = `${Math.max(y - tip.offsetHeight - 10, 0)}px`;
    },
    hide() {
      tip.hidden = true;
    },
  };
}

// A horizontal color bar with labels at its ends and in the middle; paint(share) returns a color.
function colorBar(title, paint, labels) {
  const canvas = element("canvas", { width: 128, height: 1 });
  const draw = () => {
    const context = canvas.getContext("2d");
    for (let x = 0; x < 128; x++) {
      context.fillStyle = paint(x / 127);
      context.fillRect(x, 0, 1, 1);
    }
  };
  draw();
  redraws.push(draw);
  const ends = element("div", { class: "ends" }, ...labels.map((label) => element("span", {}, label)));
  return element("figure", { class: "colorbar" }, canvas, ends, element("figcaption", {}, title));
}
